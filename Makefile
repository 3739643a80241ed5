# `make demo` and `make test` need nothing but Python >= 3.10; uv, where it is installed, makes the installation short.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
DEMO := $(if $(wildcard $(STAMP)),$(STAMP),$(VENV)/.demo)
UV := $(shell command -v uv 2>/dev/null)

ifdef UV
environment = test -x $(VENV)/bin/python || $(UV) venv --quiet --seed --python $(PYTHON) $(VENV)
install = $(UV) pip install --quiet --python $(VENV)/bin/python
else
environment = test -x $(VENV)/bin/python || $(PYTHON) -m venv --upgrade-deps $(VENV)
# setuptools warns of every editable installation, at length
install = PYTHONWARNINGS="ignore:Editable installation" $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
endif

.PHONY: demo test lint types docs ci clean
demo: $(DEMO)
	@$(VENV)/bin/vgbench demo

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
	@echo "installing VGBench and what its tests need into $(VENV) (PyTorch included: several GB where nothing is cached)"
	@$(environment)
	@$(install) -e ".[dev]"
	@touch $@

$(VENV)/.demo: pyproject.toml
	@echo "installing VGBench into $(VENV) (PyTorch included: several GB where nothing is cached)"
	@$(environment)
	@$(install) -e .
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info
