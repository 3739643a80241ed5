"""Phrases in their captions: spans by hand, in the forms of Florence-2 and Kosmos-2."""

from __future__ import annotations

from pathlib import Path

import pytest

from vgbench.core.errors import UserError
from vgbench.methods.answering.captions import Captions, phrase_part

FLORENCE = "A man<loc_1><loc_2><loc_3><loc_4> in a blue shirt<loc_5><loc_6><loc_7><loc_8><loc_9><loc_9><loc_9><loc_9> ."
KOSMOS = (
    "<grounding><phrase> a snowman</phrase><object><patch_index_0044><patch_index_0863></object> warming himself by"
    "<phrase> a fire</phrase><object><patch_index_0005><patch_index_0911></object>"
)


@pytest.mark.parametrize(
    ("words", "phrase", "part"),
    [
        (FLORENCE, "a man", "A man<loc_1><loc_2><loc_3><loc_4>"),
        (FLORENCE, "a blue shirt", "in a blue shirt<loc_5><loc_6><loc_7><loc_8><loc_9><loc_9><loc_9><loc_9>"),
        (FLORENCE, "a man with a hat", "A man<loc_1><loc_2><loc_3><loc_4>"),
        (FLORENCE, "a dog", ""),
        (KOSMOS, "a fire", "warming himself by a fire<patch_index_0005><patch_index_0911>"),
        (KOSMOS, "a snowman", "a snowman<patch_index_0044><patch_index_0863>"),
        ("no places", "places", ""),
    ],
)
def test_the_places_behind_a_phrase(words: str, phrase: str, part: str) -> None:
    assert phrase_part(words, phrase) == part


def test_the_file_of_captions(tmp_path: Path) -> None:
    file = tmp_path / "captions.jsonl"
    file.write_text(
        '{"key": "1", "caption": "A man."}\n{"key": "2", "caption": "A man."}\n{"key": "3", "caption": "B"}\n'
    )
    assert Captions(file).texts == ["A man.", "B"]
    file.write_text('{"key": "1", "caption": "A man."}\n{"key": "2"}\n')
    with pytest.raises(UserError, match=r"captions\.jsonl:2: not \{\"key\": \.\.\., \"caption\": \.\.\.\}"):
        Captions(file)
    with pytest.raises(UserError, match=r"method\.captions= is a file of JSON lines"):
        Captions(tmp_path / "other.jsonl")
