"""English words as probes see them: tokens, directions, and what each word says of an object."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from vgbench.data.scene import CATEGORY

TOKENS = re.compile(r"[A-Za-z]+(?:'[a-z]+)?|[^A-Za-z]+")
_SIDES = re.compile(r"(left|right)(most|wards?|hand|side|ish)?|([lr])hs", re.IGNORECASE)
OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}

# Categories whose word is used for other things as well: an absent category proves nothing about the word.
AMBIGUOUS = frozenset({"orange", "mouse", "remote", "kite", "tie", "bear", "clock", "bowl", "cup", "boat", "glass"})

# Words that name a part of a category of COCO: where the category is absent, nothing answers to them.
NARROWER: Mapping[str, tuple[str, ...]] = {
    "person": (
        *("man", "men", "woman", "women", "boy", "girl", "guy", "lady", "kid", "child", "children", "people"),
        *("baby", "dude", "gentleman", "toddler", "boys", "girls", "guys", "kids", "ladies"),
    ),
    "dog": ("puppy",),
    "cat": ("kitten", "kitty"),
    "horse": ("pony", "foal"),
    "cow": ("calf", "bull"),
    "sheep": ("lamb",),
}

COLOURS = frozenset(
    [
        "red",
        "orange",
        "yellow",
        "green",
        "blue",
        "purple",
        "violet",
        "pink",
        "brown",
        "black",
        "white",
        "grey",
        "gray",
        "tan",
        "beige",
        "gold",
        "silver",
    ]
)
SIZES = frozenset(["small", "little", "tiny", "large", "big", "huge", "tall", "short", "long"])


def words(text: str) -> list[str]:
    """The words of a text in lower case, without anything between them."""
    return [token.lower() for token in TOKENS.findall(text) if token[0].isalpha()]


def like(word: str, model: str) -> str:
    """``word`` in the capitals of ``model``."""
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word.capitalize() if model[:1].isupper() else word


def map_words(text: str, change: Callable[[str], str | None]) -> str:
    """The text with each word replaced by ``change(lower-case word)``, its capitals kept; None: as it was."""
    parts = []
    for token in TOKENS.findall(text):
        new = change(token.lower()) if token[0].isalpha() else None
        parts.append(token if new is None else like(new, token))
    return "".join(parts)


def drop_words(text: str, drop: Callable[[str], bool]) -> str:
    """The text without the words that ``drop(lower-case word)`` names, nor the space they leave."""
    rest = [token for token in TOKENS.findall(text) if not (token[0].isalpha() and drop(token.lower()))]
    return re.sub(r"\s+([.,!?])", r"\1", " ".join("".join(rest).split()))


def is_side(word: str) -> bool:
    """Whether a word says left or right."""
    return _SIDES.fullmatch(word) is not None


def exchange_sides(text: str) -> str:
    """Left for right and right for left."""

    def change(word: str) -> str | None:
        match = _SIDES.fullmatch(word)
        if match is None:
            return None
        side = match[1] or match[3]
        return OTHER_SIDE[side] + word[len(side) :]

    return map_words(text, change)


def plurals(word: str) -> tuple[str, str]:
    """A noun and its plural, by rule."""
    if re.search(r"(s|x|z|ch|sh)$", word):
        return word, word + "es"
    return word, (word[:-1] + "ies" if re.search(r"[^aeiou]y$", word) else word + "s")


class Lexicon:
    """What words say of objects: the data's own attribute words, and the names of its categories.

    Args:
        categories: every category of the annotations.
        attribute_words: of the dataset; one that a dataset gives has its meaning alone.

    Attributes:
        whole: word -> (attribute, value): everything with the value answers to the word, and nothing else.
        parts: word -> (attribute, value): what answers to the word has the value.
    """

    def __init__(self, categories: Iterable[str], attribute_words: Mapping[str, tuple[str, str]]) -> None:
        names = {category.lower(): category for category in categories if category}
        self.whole: dict[str, tuple[str, str]] = {}
        for name, category in names.items():
            if " " not in name and name not in AMBIGUOUS:
                self.whole |= dict.fromkeys(plurals(name), (CATEGORY, category))
        self.whole |= attribute_words
        narrower = {
            word: (CATEGORY, names[name]) for name, forms in NARROWER.items() if name in names for word in forms
        }
        self.parts = {**narrower, **self.whole}

    def is_noun(self, word: str) -> bool:
        """Whether a word names a category or a part of one."""
        return self.parts.get(word, ("",))[0] == CATEGORY

    def is_attribute(self, word: str) -> bool:
        """Whether a word says what an object looks like."""
        return word in COLOURS or word in SIZES or self.parts.get(word, (CATEGORY,))[0] != CATEGORY

    def adjective_class(self, word: str) -> str | None:
        """What kind of adjective a word is, or None: two of different kinds may change places."""
        if word in self.whole and self.whole[word][0] != CATEGORY:
            return self.whole[word][0]
        return "colour" if word in COLOURS else "size" if word in SIZES else None
