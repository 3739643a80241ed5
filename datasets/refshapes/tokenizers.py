"""The tokenizers of RefShapes, a SentencePiece model and a WordPiece vocabulary of its words: how they were made."""

from __future__ import annotations

import string
from pathlib import Path

from vgbench.datasets.refshapes.language import vocabulary
from vgbench.text.sentencepiece import train_sentencepiece
from vgbench.text.wordpiece import build_vocabulary

SENTENCEPIECE_MODEL = Path(__file__).with_name("refshapes.spm")
SENTENCEPIECE_SIZE = 300  # pieces at most
EARLIER_WORDS = (
    *("crescent", "crescents", "dots", "dotted", "moon", "moons"),
    *("orange", "pink", "spots", "spotted", "star", "stars"),
)
"""Words of RefShapes' first version, which had more shapes and colours: the model is older, and weights rest on it."""
WORDPIECE_SIZE = 320  # pieces at most: what a model of RefShapes should have as vocab_size


def train_sentencepiece_model(path: Path) -> None:
    """How :data:`SENTENCEPIECE_MODEL` was made: every word of RefShapes, and letters and digits for all other words."""
    words = sorted({*vocabulary(), *EARLIER_WORDS})
    characters = [*string.ascii_lowercase, *string.digits]
    corpus = [" ".join(words)] * 50 + [word for word in words for _ in range(200)] + characters
    train_sentencepiece(corpus, path, SENTENCEPIECE_SIZE)


def wordpiece_vocabulary() -> list[str]:
    """Every word of RefShapes, and all printable ASCII characters for words of the user's."""
    characters = [chr(code) for code in range(33, 127)]
    letters = [character for character in characters if character.isalnum()]
    words = [*vocabulary(), *characters, *(f"a{letter}" for letter in letters)]
    return build_vocabulary(words, WORDPIECE_SIZE)
