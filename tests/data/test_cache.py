"""Cached tables follow their sources."""

import pytest

from tests.data.samples import REFS, content, open_set, seqtr_content, write_refer, write_seqtr
from vgbench.core.errors import UserError
from vgbench.datasets.refcoco import RefCOCO


def test_second_opening_reads_no_source(tmp_path, monkeypatch):
    write_refer(tmp_path)
    first = open_set(RefCOCO, tmp_path).load("train")

    def forbidden(*arguments):
        raise AssertionError("a source was read")

    monkeypatch.setattr("vgbench.core.files.file_sha256", forbidden)
    monkeypatch.setattr(RefCOCO, "read", forbidden)
    again = open_set(RefCOCO, tmp_path).load("train")
    assert again.hash == first.hash and content(again) == content(first)


def test_cache_follows_sources_and_survives_damage(tmp_path):
    write_refer(tmp_path)
    data = open_set(RefCOCO, tmp_path)
    assert data.load("val").row(0).expression == "Caf\u00e9 sign"
    write_refer(tmp_path, [*REFS[:2], ("val", [21], ["other"]), *REFS[3:]])
    assert data.load("val").row(0).expression == "other"
    for file in (tmp_path / "cache" / "tables").iterdir():
        file.write_bytes(b"ARROW1 but not really")
    assert open_set(RefCOCO, tmp_path).load("val").row(0).expression == "other"


def test_same_cache_serves_error_and_skip(tmp_path):
    damaged = seqtr_content()
    damaged["train"][0]["bbox"] = [0, 0, 0, 0]
    write_seqtr(tmp_path, content=damaged)
    assert len(open_set(RefCOCO, tmp_path, on_bad_sample="skip").load("train")) == 1
    with pytest.raises(UserError, match="on_bad_sample=skip to leave out 2"):
        open_set(RefCOCO, tmp_path).load("train")
