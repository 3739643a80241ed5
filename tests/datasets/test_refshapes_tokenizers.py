"""The tokenizers that a dataset brings along, reached by its name."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece
import torch

from vgbench.core import registry
from vgbench.core.errors import UserError
from vgbench.data.dataset import GroundingData
from vgbench.datasets.refshapes import RefShapes, vocabulary
from vgbench.datasets.refshapes.tokenizers import SENTENCEPIECE_MODEL, WORDPIECE_SIZE, train_sentencepiece_model
from vgbench.text.sentencepiece import BEiT3Tokenizer
from vgbench.text.wordpiece import SPECIAL_TOKENS, WordPiece


def test_wordpiece_knows_every_word_and_no_character_is_unknown():
    tokenizer = WordPiece.from_file("refshapes")
    assert len(tokenizer) <= WORDPIECE_SIZE
    assert all(len(tokenizer.pieces(word)) == 1 for word in vocabulary())
    assert tokenizer.unk_id not in tokenizer.pieces("zebra-crossing #42, isn't it?")


def test_sentencepiece_by_the_name_of_the_dataset():
    by_name, by_path = BEiT3Tokenizer("refshapes", 12), BEiT3Tokenizer(SENTENCEPIECE_MODEL, 12)
    texts = ["red circle", "the small blue square left of it"]
    assert torch.equal(by_name(texts)[0], by_path(texts)[0])
    assert RefShapes.sentencepiece_model() == SENTENCEPIECE_MODEL


@pytest.mark.skipif(sentencepiece.__version__ < "0.2.1", reason="a trainer that writes other bytes")
def test_the_shipped_sentencepiece_model_can_be_made_anew(tmp_path: Path):
    train_sentencepiece_model(tmp_path / "anew.spm")
    assert (tmp_path / "anew.spm").read_bytes() == SENTENCEPIECE_MODEL.read_bytes()


def test_a_dataset_of_the_users_brings_its_own(monkeypatch: pytest.MonkeyPatch):
    class Toy(GroundingData):
        @classmethod
        def wordpiece_vocabulary(cls) -> list[str]:
            return [*SPECIAL_TOKENS, "toy"]

    monkeypatch.setitem(registry.datasets._added, "toys", Toy)
    assert WordPiece.from_file("toys").pieces("toy") == [5]
    with pytest.raises(UserError, match=r"toys: No such file"):  # no SentencePiece model: the name is a path
        BEiT3Tokenizer("toys", 8)
