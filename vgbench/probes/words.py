"""Changes of the words that leave the meaning, and changes that take something of it away."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import numpy as np

from vgbench.data.describe import LOCATION
from vgbench.data.table import Row
from vgbench.probes.base import Annotations, Expectation, LeftOut, Probe
from vgbench.probes.wording import TOKENS, Lexicon, drop_words, like, map_words, words

# British and American spellings of words that occur in descriptions of pictures
BRITISH = {
    "grey": "gray",
    "greyish": "grayish",
    "colour": "color",
    "coloured": "colored",
    "colours": "colors",
    "centre": "center",
    "tyre": "tire",
    "tyres": "tires",
    "aeroplane": "airplane",
    "moustache": "mustache",
    "doughnut": "donut",
    "doughnuts": "donuts",
    "jewellery": "jewelry",
    "pyjamas": "pajamas",
    "plough": "plow",
    "kerb": "curb",
    "catalogue": "catalog",
    "theatre": "theater",
    "metre": "meter",
    "neighbour": "neighbor",
    "cosy": "cozy",
    "towards": "toward",
}
AMERICAN = {american: british for british, american in BRITISH.items()}
FILLERS = (
    "find {}",
    "please find {}",
    "{} please",
    "um, {}",
    "i mean {}",
    "{}, you know",
    "can you see {}",
    "the thing i am looking for is {}",
)
ENDINGS = (".", "!", " .", "...", ",")
TYPO_LENGTH = 4  # letters of a word that is mistyped, at least
TRIES = 20

Change = Callable[[str, Lexicon, np.random.Generator], str]


def typos(text: str, lexicon: Lexicon, random: np.random.Generator) -> str:
    """One slip of the finger in one word: two letters exchanged, one left out, one doubled."""
    tokens = TOKENS.findall(text)
    places = [
        place
        for place, token in enumerate(tokens)
        if token.isalpha() and len(token) >= TYPO_LENGTH and not LOCATION.search(token.lower())
    ]
    if not places:
        raise LeftOut("no word long enough, sides and places apart")
    for _ in range(TRIES):
        place = int(random.choice(places))
        word, at = tokens[place], int(random.integers(1, len(tokens[place]) - 1))
        slips = (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[: at + 1] + word[at:],
        )
        slip = slips[int(random.integers(3))]
        if slip.lower() != word.lower() and slip.lower() not in lexicon.parts:
            return "".join([*tokens[:place], slip, *tokens[place + 1 :]])
    raise LeftOut("every slip makes another word, or the same")


def case(text: str, lexicon: Lexicon, random: np.random.Generator) -> str:
    """All capitals; of a text that has only capitals, none."""
    return text.upper() if text != text.upper() else text.lower()


def punctuation(text: str, lexicon: Lexicon, random: np.random.Generator) -> str:
    """Something behind the last word, or what is there taken away."""
    bare = re.sub(r"[\s.,!?]+$", "", text)
    return bare if bare != text else text + ENDINGS[int(random.integers(len(ENDINGS)))]


def filler(text: str, lexicon: Lexicon, random: np.random.Generator) -> str:
    """Words around the expression that say nothing."""
    return FILLERS[int(random.integers(len(FILLERS)))].format(text)


def spelling(text: str, lexicon: Lexicon, random: np.random.Generator) -> str:
    """British for American words, and the other way round."""
    return map_words(text, lambda word: BRITISH.get(word) or AMERICAN.get(word))


def adjectives(text: str, lexicon: Lexicon, random: np.random.Generator) -> str:
    """Two adjectives of different kinds beside each other change places."""
    tokens = TOKENS.findall(text)
    for first in range(len(tokens) - 2):
        pair = tokens[first], tokens[first + 2]
        if not tokens[first + 1].isspace() or not all(token.isalpha() for token in pair):
            continue
        kinds = [lexicon.adjective_class(token.lower()) for token in pair]
        if None not in kinds and kinds[0] != kinds[1]:
            swapped = [like(pair[1].lower(), pair[0]), tokens[first + 1], like(pair[0].lower(), pair[1])]
            return "".join([*tokens[:first], *swapped, *tokens[first + 3 :]])
    raise LeftOut("no two adjectives of different kinds beside each other")


def no_nouns(text: str, lexicon: Lexicon, random: np.random.Generator) -> str:
    """Without the names of categories."""
    return drop_words(text, lexicon.is_noun)


def no_attributes(text: str, lexicon: Lexicon, random: np.random.Generator) -> str:
    """Without the words for what an object looks like."""
    return drop_words(text, lexicon.is_attribute)


def no_places(text: str, lexicon: Lexicon, random: np.random.Generator) -> str:
    """Without the words for where an object is."""
    return drop_words(text, lambda word: LOCATION.fullmatch(word) is not None)


def order(text: str, lexicon: Lexicon, random: np.random.Generator) -> str:
    """The words in a random order."""
    return " ".join(random.permutation(text.split()).tolist())


def shuffle(text: str, lexicon: Lexicon, random: np.random.Generator) -> str:
    """Its own text; :class:`Words` deals the expressions."""
    return text


SAYING_THE_SAME: dict[str, Change] = {
    "typos": typos,
    "case": case,
    "punctuation": punctuation,
    "filler": filler,
    "spelling": spelling,
    "adjectives": adjectives,
}
SAYING_LESS: dict[str, Change] = {
    "no_nouns": no_nouns,
    "no_attributes": no_attributes,
    "no_places": no_places,
    "order": order,
    "shuffled": shuffle,
}


class Words(Probe):
    """The same meaning in other words, and less meaning."""

    name = "words"
    title = "words changed"
    shows = (
        "typos, case, punctuation, filler, spelling, adjectives: the same is meant, and the answer must stay. "
        "no_nouns, no_attributes, no_places, order, shuffled: what is lost says how much of the sentence is read; "
        "'shuffled' deals every expression to another row, what remains there is guessed from the image alone"
    )
    cannot = (
        "a typo may hit the one word that matters, and a tokenizer that lowers all letters passes 'case' by "
        "construction. An object may still be meant without its noun: what remains right there need not be a guess"
    )
    kinds: ClassVar = {
        **dict.fromkeys(SAYING_THE_SAME, Expectation.STAY),
        **dict.fromkeys(SAYING_LESS, Expectation.LOSE),
    }

    def __init__(self, kind: str = "", level: int | None = None) -> None:
        super().__init__(kind, level)
        self._change = {**SAYING_THE_SAME, **SAYING_LESS}[kind]
        self._dealt: dict[int, dict[str, str]] = {}

    def question(self, row: Row, annotations: Annotations, random: np.random.Generator) -> Row:
        """The expression in other words; raises LeftOut where this kind has nothing to change, or nothing is left."""
        if self.expectation is Expectation.LOSE and row.no_target:
            raise LeftOut("nothing is meant: there is nothing to lose")
        if self.kind == "shuffled":
            return replace(row, expression=self._deal(annotations)[row.key])
        text = self._change(row.expression, annotations.lexicon, random)
        if text == row.expression:
            raise LeftOut("nothing to change")
        if not words(text):
            raise LeftOut("no word would be left")
        return replace(row, expression=text)

    def _deal(self, annotations: Annotations) -> dict[str, str]:
        """Key -> expression of another row, as in the control ``eval.control``."""
        table = annotations.table
        if id(table) not in self._dealt:
            from vgbench.batches.samples import shuffled  # brings PyTorch along

            texts = table.column("expression")[shuffled(table)]
            self._dealt = {id(table): dict(zip(table.column("key").tolist(), texts.tolist(), strict=True))}
        return self._dealt[id(table)]
