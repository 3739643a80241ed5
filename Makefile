# `make demo` and `make test` need nothing but Python >= 3.10.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed

.PHONY: demo test lint types docs ci clean
demo: $(STAMP)
	$(VENV)/bin/vgbench run method=alvg dataset=refshapes
	$(VENV)/bin/vgbench compare runs
	@echo "the same as a page, with pictures of every example:"
	@$(VENV)/bin/vgbench compare runs --html runs/page

test: $(STAMP)
	$(VENV)/bin/python -m pytest

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(STAMP)
	rm -rf build/types && mkdir -p build/types/vgbench
	for part in vgbench/*; do ln -s ../../../$$part build/types/vgbench/; done
	for part in methods datasets configs leaderboards; do ln -s ../../../$$part build/types/vgbench/$$part; done
	cd build/types && ../../$(VENV)/bin/mypy --config-file ../../pyproject.toml -p vgbench

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
	@echo build/site/index.html

ci: lint types docs test

$(STAMP): pyproject.toml
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
