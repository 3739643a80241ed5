"""BERT's WordPiece tokenizer from a ``vocab.txt`` or ``tokenizer.json``, and small vocabularies for one's own corpus.

The pieces, the normalisation (control characters, Chinese characters, accents, case) and the pre-tokenisation are
those of the ``tokenizers`` library; the methods differ only in how a sequence is framed and padded:
``[CLS] pieces [SEP]`` of a fixed length (ResVG, VG-LAW) or ``[CLS] pieces`` padded to the longest text (AMC).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor

from vgbench.core.errors import UserError
from vgbench.core.files import ordinary_file
from vgbench.core.hub import local_path
from vgbench.core.published import PublishedFile
from vgbench.core.registry import datasets

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
BERT_VOCABULARY = PublishedFile(
    "vocab.txt",
    "vocabulary of bert-base-uncased",
    "method.tokenizer",
    "https://huggingface.co/google-bert/bert-base-uncased/resolve/main/vocab.txt",
    "hf://google-bert/bert-base-uncased/vocab.txt",
)


class WordPiece:
    """WordPiece over a given vocabulary.

    Args:
        vocabulary: the pieces; a piece's position is its id. :data:`SPECIAL_TOKENS` must be among them ("[MASK]" may
            be missing).
        lower_case: lower-case and strip accents (the uncased BERT models).
        sep: end every sequence with ``[SEP]``, which survives truncation.

    Raises:
        UserError: if a special token is missing.
    """

    def __init__(self, vocabulary: Sequence[str], lower_case: bool = True, sep: bool = True) -> None:
        self.vocabulary = tuple(vocabulary)
        self.lower_case = lower_case
        self.sep = sep
        missing = set(SPECIAL_TOKENS[:4]) - set(self.vocabulary)
        if missing:
            raise UserError(f"WordPiece vocabulary lacks {', '.join(sorted(missing))}; use BERT's vocab.txt")
        self._ids = {piece: index for index, piece in enumerate(self.vocabulary)}
        self.pad_id, self.unk_id, self.cls_id, self.sep_id = (self._ids[token] for token in SPECIAL_TOKENS[:4])
        self.mask_id = self._ids.get("[MASK]")

    @classmethod
    def from_file(cls, path: str | Path | None, lower_case: bool = True, sep: bool = True) -> WordPiece:
        """Read ``vocab.txt``, one piece per line, or the vocabulary in a ``tokenizer.json``.

        ``path`` is the file or the folder that holds it, as transformers saves one (since version 5 without
        ``vocab.txt``), or a name on the Hub. The name of a dataset that brings a vocabulary along stands for that, and
        needs no file.

        Raises:
            UserError: if ``path`` is None, or there is no such file, or it is no vocabulary.
        """
        if path is None:
            raise UserError(
                "method.tokenizer is not set; give the vocabulary: method.tokenizer=/path/bert-base-uncased/vocab.txt"
            )
        if str(path) in datasets and (pieces := datasets.load(str(path)).wordpiece_vocabulary()) is not None:
            return cls(pieces, lower_case, sep)
        file = _vocabulary_file(local_path(path))
        try:
            text = ordinary_file(file).read_text(encoding="utf-8")
            if file.suffix == ".json":
                return cls(_pieces_in_json(text), lower_case, sep)
            return cls.from_text(text, lower_case, sep)
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"{file}: cannot read the vocabulary ({error}); set method.tokenizer to BERT's vocab.txt"
            ) from None
        except UserError as error:
            raise UserError(f"{file}: {error}") from None

    @classmethod
    def from_option(
        cls,
        option: str | Path | WordPiece | None,
        vocab_size: int | None,
        sep: bool = True,
        size_option: str = "method.vocab_size",
    ) -> WordPiece:
        """The tokenizer of ``method.tokenizer``: what :meth:`from_file` takes, or one that is ready.

        Args:
            option: value of the option.
            vocab_size: rows of the model's word table; None: as many as the vocabulary has pieces.
            sep: as for the class; a ready tokenizer keeps its own.
            size_option: the option that sets the word table's size.

        Raises:
            UserError: if there is no such vocabulary, or it has more pieces than the word table has rows.
        """
        tokenizer = option if isinstance(option, WordPiece) else cls.from_file(option, sep=sep)
        if vocab_size is not None and len(tokenizer) > vocab_size:
            raise UserError(
                f"method.tokenizer has {len(tokenizer)} pieces, the word table {vocab_size} rows; set "
                f"{size_option}={len(tokenizer)}, or give the vocabulary that the model was trained with"
            )
        return tokenizer

    @classmethod
    def from_text(cls, text: str, lower_case: bool = True, sep: bool = True) -> WordPiece:
        """From the content of a ``vocab.txt``."""
        # Not splitlines(): the vocabulary holds characters that count as line separators there (U+0085, U+2028).
        pieces = [line.removesuffix("\r") for line in text.split("\n")]
        if pieces and not pieces[-1]:
            pieces.pop()
        return cls(pieces, lower_case, sep)

    def __len__(self) -> int:
        return len(self.vocabulary)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer(models.WordPiece(self._ids, unk_token="[UNK]", max_input_chars_per_word=100))
        tokenizer.normalizer = _normalizer(self.lower_case)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        return tokenizer

    def pieces(self, text: str) -> list[int]:
        """Ids of the word pieces of ``text``, without special tokens."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def truncate(self, text: str, pieces: int) -> str:
        """The longest beginning of ``text`` that has at most ``pieces`` word pieces."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return text if len(encoding.ids) <= pieces else text[: encoding.offsets[pieces - 1][1]]

    def __call__(
        self, texts: Sequence[str], max_length: int | None = None, pad_to_max: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Tokenise a batch.

        Args:
            texts: B texts.
            max_length: most ids per sequence, special tokens included; None: no limit.
            pad_to_max: pad to ``max_length``; False (or no limit): to the longest sequence of the batch.

        Returns:
            ids [B, L] int64 and padding mask [B, L] bool, True = padding.
        """
        tail = [self.sep_id] if self.sep else []
        limit = None if max_length is None else max_length - 1 - len(tail)
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        sequences = [[self.cls_id, *encoding.ids[:limit], *tail] for encoding in encodings]
        length = max_length if max_length is not None and pad_to_max else max(map(len, sequences), default=0)
        ids = torch.tensor([s + [self.pad_id] * (length - len(s)) for s in sequences], dtype=torch.int64)
        lengths = torch.tensor([len(s) for s in sequences])
        return ids.view(len(sequences), length), torch.arange(length)[None] >= lengths[:, None]


def _vocabulary_file(path: Path) -> Path:
    """The file itself, or the one in a folder: vocab.txt, which is all that there is to know, before tokenizer.json."""
    if not path.is_dir():
        return path
    files = [path / name for name in ("vocab.txt", "tokenizer.json")]
    return next((file for file in files if file.is_file()), files[0])


def _pieces_in_json(text: str) -> list[str]:
    """The pieces in a ``tokenizer.json`` of the ``tokenizers`` library, in the order of their ids.

    Raises:
        UserError: if it is none, not a WordPiece one, or an id is missing.
    """
    try:
        content = json.loads(text)
        model = content["model"]
        kind, ids = model.get("type", "WordPiece"), dict(model["vocab"])
        ids |= {token["content"]: token["id"] for token in content.get("added_tokens") or ()}
        pieces = [piece for piece, _ in sorted(ids.items(), key=lambda item: item[1])]
        whole = sorted(ids.values()) == list(range(len(ids)))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"not the tokenizer.json of a WordPiece tokenizer ({reason}); give BERT's vocab.txt") from None
    if kind != "WordPiece":
        raise UserError(f"a {kind} tokenizer, where a WordPiece one is needed; give that of bert-base-uncased")
    if not whole:
        raise UserError(f"its {len(ids)} pieces do not have the ids 0 to {len(ids) - 1}; give BERT's vocab.txt")
    return pieces


def _normalizer(lower_case: bool) -> normalizers.Normalizer:
    return normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, lowercase=lower_case)


def build_vocabulary(corpus: Iterable[str], size: int, lower_case: bool = True) -> list[str]:
    """A small vocabulary for ``corpus``: the same list for the same texts in any order.

    Holds the special tokens, every character of the corpus alone and as continuation (so that none of its words is
    unknown), and then the most frequent words up to ``size`` entries, ties in alphabetical order.

    Raises:
        ValueError: if ``size`` leaves no room for the characters.
    """
    normalizer, splitter = _normalizer(lower_case), pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in corpus:
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    characters = sorted({character for word in words for character in word})
    continued = sorted({character for word in words for character in word[1:]})
    vocabulary = [*SPECIAL_TOKENS, *characters, *(f"##{character}" for character in continued)]
    if len(vocabulary) > size:
        raise ValueError(
            f"a vocabulary of {size} pieces cannot hold the {len(vocabulary)} characters and special tokens"
        )
    single = set(vocabulary)
    ranked = sorted((word for word in words if word not in single), key=lambda word: (-words[word], word))
    return vocabulary + ranked[: size - len(vocabulary)]
