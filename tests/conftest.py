"""What several test files share. One thread per process: the processes of pytest-xdist are the parallelism."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import copy
import random
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

# Tests import what they share as tests.FOLDER.samples. Behind what is installed: a wheel is tested as it is, not hidden
# by the folder vgbench of the checkout, which lacks the methods.
sys.path.append(str(Path(__file__).parents[1]))

from tests.browser import Browser

OWN_CASES = Path(__file__).parent / "conformance"
CASES_BESIDE = Path(__file__).parents[2] / "shared" / "conformance"


def conformance_cases() -> dict[str, Path]:
    """Name -> folder of the cases in tests/conformance and in the folders of the environment variable VGBENCH_CASES.

    The variable holds folders of cases as PATH does; without it, ``shared/conformance`` beside the checkout counts, if
    that is there.
    """
    more = os.environ.get("VGBENCH_CASES", str(CASES_BESIDE)).split(os.pathsep)
    folders = [OWN_CASES, *(Path(folder) for folder in more if folder)]
    return {file.parent.name: file.parent for folder in folders for file in sorted(folder.glob("*/case.yaml"))}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the argument ``case_name`` runs once per conformance case."""
    if "case_name" in metafunc.fixturenames:
        metafunc.parametrize("case_name", sorted(conformance_cases()))


@pytest.fixture(autouse=True)
def no_plugin_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test loads from tests/examples is gone afterwards, whichever test comes next in this process."""
    from vgbench.config import plugins
    from vgbench.core import registry

    for kind in (registry.methods, registry.datasets, registry.metrics, registry.probes):
        monkeypatch.setattr(kind, "_added", dict(kind._added))
    monkeypatch.setattr(plugins, "_FOLDERS", dict(plugins._FOLDERS))
    examples = [file.stem for file in (Path(__file__).parent / "examples").glob("*.py") if file.stem not in sys.modules]
    yield
    for name in examples:
        sys.modules.pop(name, None)


@pytest.fixture(scope="session")
def conformance_case() -> Callable[[str], Path]:
    """A function name -> folder of a conformance case; the test is skipped where the case is not at hand."""
    folders = conformance_cases()

    def folder_of(name: str) -> Path:
        if name not in folders:
            pytest.skip(f"the case {name} is not here (VGBENCH_CASES)")
        return folders[name]

    return folder_of


@pytest.fixture(scope="module")
def few_scenes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """RefShapes in a folder of the test's own: number of images per split, e.g. "train:6,val:4" -> overrides."""

    def overrides(images: str) -> list[str]:
        root = tmp_path_factory.mktemp("refshapes")
        places = [f"dataset.data_root={root}", f"dataset.cache_dir={root}"]
        return ["dataset=refshapes", f"+dataset.images={{{images}}}", *places]

    return overrides


@pytest.fixture(scope="session")
def mutate() -> Callable[[Any, random.Random, Sequence[Any]], Any]:
    """A function that replaces one random node of a JSON value by one of the junk values, or removes it, in place."""

    def mutated(value: Any, generator: random.Random, junk: Sequence[Any]) -> Any:
        if isinstance(value, (dict, list)) and value and generator.random() < 0.85:
            key = generator.choice(list(value) if isinstance(value, dict) else range(len(value)))
            if generator.random() < 0.15:
                del value[key]
            else:
                value[key] = mutated(value[key], generator, junk)
            return value
        return copy.deepcopy(generator.choice(junk))

    return mutated


@pytest.fixture(scope="module")
def browser(page: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser that shows the module's ``page``; skips without Chromium."""
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if binary is None or shutil.which("bash") is None:
        pytest.skip("no Chromium here")
    chromium = Browser(binary, tmp_path_factory.mktemp("profile"), 1280, 900)
    chromium.open(page)
    yield chromium
    chromium.close()


@pytest.fixture
def terminal_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[], object]], list[str]]:
    """A function that calls another with a terminal of 80 columns as standard output: its lines, without colours."""

    def lines(call: Callable[[], object]) -> list[str]:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys.stdout, "isatty", lambda: True)
            patch.setenv("COLUMNS", "80")
            patch.setenv("TERM", "xterm")
            call()
        return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()

    return lines
