"""Every file of a run folder and of a cache, with something else in its place: made again, or named in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.security.doors_data import rows_of, write_cache
from tests.security.doors_runs import (
    method_node,
    small_method,
    use_model,
    use_page,
    use_record,
    use_training,
    use_two_runs,
    write_run,
    write_training,
    write_two_runs,
)
from tests.security.harness import SECRET, deadline
from tests.security.mutation import KINDS, replace_by
from vgbench.core.errors import UserError
from vgbench.core.lines import one_line
from vgbench.datasets.refcoco import RefCOCO
from vgbench.training import weights


def write_finished(folder: Path) -> None:
    """A model with its digest beside it."""
    weights.save(small_method().state_dict(), method_node()["method"], folder / "model.safetensors")


# what is written, what reads it, and files whose absence or emptiness is no damage
PLACES: dict[str, tuple[Callable[[Path], object], tuple[Callable[[Path], Any], ...]]] = {
    "run folder": (write_run, (use_record, use_page)),
    "two runs": (write_two_runs, (use_two_runs,)),
    "training": (write_training, (use_training,)),
    "model": (write_finished, (use_model,)),
}


def check(place: str, kinds: tuple[str, ...], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, readers = PLACES[place]
    whole = root / "whole"
    whole.mkdir()
    (root / "outside").mkdir()
    (root / "outside" / "secret.txt").write_text(SECRET)
    write(whole)
    names = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file()]
    for name in names:
        for kind in kinds:
            for reader in readers:
                folder = root / "case"
                shutil.copytree(whole, folder)
                replace_by(kind, folder / name)
                monkeypatch.chdir(folder)
                title = f"{name} replaced by {kind}, {reader.__name__}"
                try:
                    with deadline():
                        value = reader(folder)
                    assert SECRET not in str(value), title
                except UserError as error:
                    line = one_line(error)
                    named = any(part in line for part in (str(name), name.name, str(name.parent)))
                    assert named and SECRET not in line, f"{title}: {line}"
                monkeypatch.chdir(root)
                shutil.rmtree(folder)


@pytest.mark.parametrize("place", ["run folder", "model"])  # the others take a minute
def test_a_file_is_empty_or_of_another_kind(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(place, ("empty", "pipe"), tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_anything_in_place_of_a_file(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(place, KINDS, tmp_path, monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_in_the_cache_the_table_is_the_same(kind: str, tmp_path: Path) -> None:
    read = rows_of(RefCOCO, "val")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.txt").write_text(SECRET)
    data = tmp_path / "data"
    data.mkdir()
    write_cache(data)
    expected = read(data)
    names = [path.relative_to(data) for path in (data / "cache").rglob("*") if path.is_file()]
    assert len(names) >= 3  # the table and what is remembered about its sources
    for name in names:
        shutil.copytree(data, tmp_path / "case")
        replace_by(kind, tmp_path / "case" / name)
        with deadline():
            assert read(tmp_path / "case") == expected, name
        shutil.rmtree(tmp_path / "case")


def test_a_model_whose_bytes_are_not_those_of_its_digest(tmp_path: Path) -> None:
    write_finished(tmp_path)
    file = tmp_path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # of a weight: the file is a whole one all the same
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors: damaged, it does not match model\.safetensors\.sha256"):
        use_model(tmp_path)
