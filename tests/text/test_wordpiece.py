from __future__ import annotations

import pytest
import torch
import transformers
from transformers import BertTokenizer

from vgbench.core.errors import UserError
from vgbench.text.wordpiece import SPECIAL_TOKENS, WordPiece, build_vocabulary

CORPUS = ["the red ball, left of the box", "The RED balls on the right!", "café au lait 中文 (left)"]


@pytest.fixture
def vocabulary() -> list[str]:
    return build_vocabulary(CORPUS, 50)


def test_same_pieces_as_transformers(vocabulary, tmp_path):
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    reference = BertTokenizer.from_pretrained(str(tmp_path))
    ours = WordPiece.from_file(file)
    texts = [*CORPUS, "unseen Ωmega-word", "tab\there\x00 and  spaces", "", "redballs", "x" * 101]
    for text in texts:
        assert ours.pieces(text) == reference.encode(text, add_special_tokens=False), text
    expected = reference(texts, padding="max_length", truncation=True, max_length=9, return_tensors="pt")
    ids, pad = ours(texts, 9)
    assert torch.equal(ids, expected["input_ids"])
    assert torch.equal(pad, expected["attention_mask"] == 0)


def test_framing():
    tokenizer = WordPiece([*SPECIAL_TOKENS, "a", "b", "c"])
    ids, pad = tokenizer(["a b c a b c", "c"], 5)
    assert ids.tolist() == [[2, 5, 6, 7, 3], [2, 7, 3, 0, 0]]
    assert pad.tolist() == [[False] * 5, [False, False, False, True, True]]
    without = WordPiece([*SPECIAL_TOKENS, "a", "b", "c"], sep=False)
    ids, pad = without(["a b c a b c", "c"], 5)
    assert ids.tolist() == [[2, 5, 6, 7, 5], [2, 7, 0, 0, 0]]
    ids, pad = without(["a b c a b c", "c d"], 50, pad_to_max=False)
    assert ids.tolist() == [[2, 5, 6, 7, 5, 6, 7], [2, 7, 1, 0, 0, 0, 0]]
    assert without(["a b", "c"])[0].shape == (2, 3)


def test_vocabulary_is_deterministic_and_complete(vocabulary):
    assert vocabulary == build_vocabulary(reversed(CORPUS), 50)
    assert len(vocabulary) == len(set(vocabulary)) == 50
    tokenizer = WordPiece(vocabulary)
    assert not any(tokenizer.unk_id in tokenizer.pieces(text) for text in CORPUS)
    assert len(tokenizer.pieces("the red")) == 2, "frequent words are whole pieces"
    with pytest.raises(ValueError, match="cannot hold"):
        build_vocabulary(CORPUS, 10)


def test_errors_name_the_key(tmp_path):
    with pytest.raises(UserError, match=r"method\.tokenizer"):
        WordPiece.from_file(None)
    with pytest.raises(UserError, match=r"vocab\.txt.*method\.tokenizer"):
        WordPiece.from_file(tmp_path)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\na\n")
    with pytest.raises(UserError, match=r"vocab\.txt.*\[CLS\], \[SEP\]"):
        WordPiece.from_file(tmp_path)


def test_a_folder_of_transformers_5_is_read(vocabulary, tmp_path):
    if int(transformers.__version__.partition(".")[0]) < 5:
        pytest.skip("transformers 4 writes a vocab.txt")
    reference = BertTokenizer(vocab={piece: number for number, piece in enumerate(vocabulary)})
    reference.save_pretrained(str(tmp_path / "bert"))
    (tmp_path / "bert" / "vocab.txt").unlink(missing_ok=True)
    for place in (tmp_path / "bert", tmp_path / "bert" / "tokenizer.json"):
        ours = WordPiece.from_file(place)
        assert ours.vocabulary == tuple(vocabulary)
        for text in CORPUS:
            assert ours.pieces(text) == reference.encode(text, add_special_tokens=False), text
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join([*vocabulary, "further"]))
    assert len(WordPiece.from_file(tmp_path / "bert")) == len(vocabulary) + 1, "vocab.txt comes first"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not the tokenizer.json of a WordPiece"),
        ("[]", "not the tokenizer.json of a WordPiece"),
        ('{"model": {"vocab": 3}}', "not the tokenizer.json of a WordPiece"),
        ('{"model": {"type": "BPE", "vocab": {"a": 0}}}', "a BPE tokenizer"),
        ('{"model": {"type": "WordPiece", "vocab": {"a": 0, "b": 2}}}', "do not have the ids"),
        ('{"model": {"type": "WordPiece", "vocab": {"a": 0}}}', r"lacks \[CLS\]"),
    ],
)
def test_other_tokenizer_files_are_refused_by_name(content, problem, tmp_path):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=rf"tokenizer\.json: .*{problem}"):
        WordPiece.from_file(tmp_path)
