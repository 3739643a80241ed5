"""Answers on disk: what a killed process wrote is there, half a line is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from vgbench.core.errors import UserError
from vgbench.methods.answering.journal import Journal, Words


def test_answers_are_there_again(tmp_path: Path) -> None:
    words = Words("a box", 0.5, (64, 48), 10, 3, (56, 56), "length")
    Journal(tmp_path).add("q1", "key", words)
    Journal(tmp_path, rank=1).add("q2", "other", Words("", 1.0, (64, 48)))
    again = Journal(tmp_path)
    assert "q1" in again and "q2" in again and "q3" not in again
    assert again.reuse("q1") == words and again.reused == {"q1"}
    assert again.all() == {"q1": words, "q2": Words("", 1.0, (64, 48))}


def test_a_line_that_was_cut_is_left_out_and_written_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add("q1", "1", Words("one", 1.0, (8, 8)))
    with journal.path.open("ab") as file:
        file.write(b'{"question": "q2", "te')
    again = Journal(tmp_path)
    assert "q1" in again and "q2" not in again
    again.add("q2", "2", Words("two", 1.0, (8, 8)))
    assert [entry.text for entry in Journal(tmp_path).all().values()] == ["one", "two"]


def test_damage_elsewhere_is_an_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add("q1", "1", Words("one", 1.0, (8, 8)))
    whole = journal.path.read_bytes()
    journal.path.write_bytes(b"{}\n" + whole)
    with pytest.raises(UserError, match=r"0\.jsonl:1: not an answer of a language model"):
        Journal(tmp_path)
