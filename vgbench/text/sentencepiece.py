"""Expressions as BEiT-3's grounding methods read them: cleaning, and the SentencePiece tokenizer with fairseq ids."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from torch import Tensor

from vgbench.core.errors import UserError
from vgbench.core.files import atomic, ordinary_file
from vgbench.core.hub import local_path
from vgbench.core.registry import datasets

__all__ = ["BEiT3Tokenizer", "clean_expression", "train_sentencepiece"]

BOS, PAD, EOS, UNK = 0, 1, 2, 3
_CLEAN = str.maketrans({**dict.fromkeys(".,'!?\"()*#:;", ""), "-": " ", "/": " "})


def clean_expression(text: str) -> str:
    """Lower-case, delete ``. , ' ! ? " ( ) * # : ;``, turn ``-`` and ``/`` into spaces; spaces are not merged.

    Source: the loaders of SeqTR, SimVG and ALVG.
    """
    return text.lower().translate(_CLEAN)


class BEiT3Tokenizer:
    """A SentencePiece model under the id scheme of fairseq: bos 0, pad 1, eos 2, unknown 3, any other piece id + 1.

    Args:
        model: path of the model file (officially ``beit3.spm``), or its bytes, or the name of a dataset that brings
            one along.
        max_tokens: length L of every output row, bos and eos included.

    Raises:
        UserError: if the file is missing or no SentencePiece model.
    """

    def __init__(self, model: str | Path | bytes, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        if isinstance(model, str) and model in datasets:
            model = datasets.load(model).sentencepiece_model() or model
        if isinstance(model, bytes):
            name, content = "tokenizer bytes", model
        else:
            name = str(model)
            try:
                content = ordinary_file(_model_file(local_path(model))).read_bytes()
            except OSError as error:
                raise UserError(
                    f"{name}: {error.strerror or error}; set method.tokenizer to a SentencePiece model "
                    "(beit3.spm of the BEiT-3 release)"
                ) from None
        try:
            self.processor = sentencepiece.SentencePieceProcessor(model_proto=content)
        except RuntimeError:
            raise UserError(
                f"{name}: not a SentencePiece model; set method.tokenizer to beit3.spm of the BEiT-3 release"
            ) from None

    @classmethod
    def from_option(cls, path: str | Path | None, max_tokens: int, vocab_size: int) -> BEiT3Tokenizer:
        """The tokenizer of ``method.tokenizer``.

        Raises:
            UserError: if the option is not set, or the model has more pieces than the word table has rows.
        """
        if path is None:
            raise UserError(
                "method.tokenizer is not set; give the SentencePiece model that the word table was trained with "
                "(beit3.spm of the BEiT-3 release)"
            )
        tokenizer = cls(path, max_tokens)
        highest = len(tokenizer) - 2  # the mask token is never produced
        if highest >= vocab_size:
            raise UserError(
                f"{path}: ids up to {highest}, but the word table has {vocab_size} rows; set method.vocab_size to at "
                f"least {highest + 1}, or take the tokenizer of this model"
            )
        return tokenizer

    def __len__(self) -> int:
        """Number of ids: the model's pieces, pad, and the mask token (the highest id)."""
        return self.processor.get_piece_size() + 2

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Cleaned texts -> ids [B, L] int64 and padding mask [B, L] bool (True = padding).

        At most L - 2 pieces are kept; bos and eos are always there.

        Raises:
            UserError: if a text has no piece at all (the official code stops there too).
        """
        ids = np.full((len(texts), self.max_tokens), PAD, dtype=np.int64)
        for row, (text, pieces) in enumerate(zip(texts, self.processor.encode(list(texts)), strict=True)):
            if not pieces:
                raise UserError(f"the expression {text!r} has no token left after cleaning; remove it from the data")
            numbers = np.asarray(pieces[: self.max_tokens - 2])
            ids[row, 0] = BOS
            ids[row, 1 : len(numbers) + 1] = np.where(numbers > 0, numbers + 1, UNK)
            ids[row, len(numbers) + 1] = EOS
        out = torch.from_numpy(ids)
        return out, out == PAD


def _model_file(path: Path) -> Path:
    """The file itself, or the one in a folder as transformers saved one before version 5.

    Raises:
        UserError: if a folder holds none; its tokenizer.json does not tell how the model normalises text.
    """
    if not path.is_dir():
        return path
    for file in (path / "sentencepiece.bpe.model", *sorted(path.glob("*.spm")), *sorted(path.glob("*.model"))):
        if file.is_file():
            return file
    lacking = " (tokenizer.json alone does not tell how it normalises text)" if any(path.glob("tokenizer.json")) else ""
    raise UserError(
        f"{path}: a folder without a SentencePiece model{lacking}; set method.tokenizer to beit3.spm of the BEiT-3 "
        "release"
    )


def train_sentencepiece(lines: Iterable[str], path: Path, vocab_size: int) -> None:
    """Train a small SentencePiece (unigram) model on cleaned expressions and write it to ``path`` atomically.

    Deterministic: one thread, no sampling. Text is not normalised beyond its spaces, which keeps the file small.

    Args:
        lines: the corpus, cleaned with :func:`clean_expression`.
        path: where the model goes.
        vocab_size: upper limit of the number of pieces; a corpus with fewer gives fewer.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="unigram",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        normalization_rule_name="identity",
        num_threads=1,
        minloglevel=2,
    )
    with atomic(path) as temporary:
        temporary.write_bytes(model.getvalue())
