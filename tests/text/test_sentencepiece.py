"""BEiT-3's tokenizer takes a model file, or a folder that holds one."""

import pytest

from vgbench.core.errors import UserError
from vgbench.text.sentencepiece import BEiT3Tokenizer, train_sentencepiece


def test_a_folder_with_a_model_in_it(tmp_path):
    file = tmp_path / "bert" / "sentencepiece.bpe.model"
    train_sentencepiece(["the red circle", "the blue square on the left"] * 5, file, 40)
    from_file, from_folder = (BEiT3Tokenizer(place, 8)(["red square"])[0] for place in (file, file.parent))
    assert from_file.tolist() == from_folder.tolist()


def test_a_folder_without_one_is_refused_in_words_that_help(tmp_path):
    with pytest.raises(UserError, match=r"folder without a SentencePiece model; set method\.tokenizer to beit3\.spm"):
        BEiT3Tokenizer(tmp_path, 8)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match=r"tokenizer\.json alone does not tell"):
        BEiT3Tokenizer(tmp_path, 8)
