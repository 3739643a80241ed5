"""Expressions that mean nothing in their image."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import ClassVar

import numpy as np

from vgbench.data.scene import CATEGORY
from vgbench.data.table import Row
from vgbench.probes.base import Annotations, Expectation, LeftOut, Probe
from vgbench.probes.wording import TOKENS, like, words

TRIES = 50  # expressions of other images that are looked at for one image
# "everything but the red one" means something although nothing red is there
_LOGIC = re.compile(r"\b(and|or|but|except|not|no|without|other|than|isn't|aren't|nor|every|all|both)\b|,")


def nothing_meant(row: Row, expression: str) -> Row:
    """The row with an expression that means nothing."""
    return replace(
        row,
        expression=expression,
        boxes=np.zeros((0, 4)),
        masks=(),
        polygons=(),
        ann_ids=(),
        categories=(),
    )


class Nothing(Probe):
    """An expression of another image that names a category which does not occur in this one."""

    name = "nothing"
    title = "nothing meant"
    shows = (
        "how often a model answers although nothing is meant: by its own decision or threshold ('right' is a "
        "rejection), as a curve over the score ('false@50': answers with a score of at least 0.5), and by how well its"
        " scores tell the plain questions from these ('auroc'; 'fpr95': false answers at the threshold that keeps 95 %"
        " of the plain ones). It works for models that were never made to reject"
    )
    cannot = (
        "that a category is absent rests on the annotations: what they miss (crowds, small things) is not absent. The "
        "expressions are far from their images; 'one_word' asks for less obvious ones"
    )
    kinds: ClassVar = {"": Expectation.REJECT}

    def __init__(self, kind: str = "", level: int | None = None) -> None:
        super().__init__(kind, level)
        self._donors: dict[int, list[tuple[int, str, str]]] = {}

    def question(self, row: Row, annotations: Annotations, random: np.random.Generator) -> Row:
        """Another image's expression; raises LeftOut where none is proved to mean nothing here."""
        annotations.objects(row)
        donors = self._donors_of(annotations)
        if not donors:
            raise LeftOut("no expression of the split names its target's category")
        for place in random.integers(len(donors), size=TRIES):
            image, category, text = donors[int(place)]
            if image != row.image_id and annotations.absent(row, CATEGORY, category):
                return nothing_meant(row, text)
        raise LeftOut("no expression names a category that its image lacks")

    def _donors_of(self, annotations: Annotations) -> list[tuple[int, str, str]]:
        """(image, category, expression) of every expression that names the category of all its targets."""
        table = annotations.table
        if id(table) not in self._donors:
            columns = (table.arrow.column(name).to_pylist() for name in ("image_id", "categories", "expression"))
            parts = annotations.lexicon.parts
            donors = [
                (image, categories[0], text)
                for image, categories, text in zip(*columns, strict=True)
                if len(set(categories)) == 1
                and any(parts.get(word) == (CATEGORY, categories[0]) for word in words(text))
                and not _LOGIC.search(text.lower())
            ]
            self._donors = {id(table): donors}
        return self._donors[id(table)]


class OneWord(Probe):
    """One word of the expression changed so that nothing fits: hard negatives."""

    name = "one_word"
    title = "one word wrong"
    shows = (
        "as 'nothing', with the image's own expression in which one word says what no object of the image is: only a "
        "model that reads this very word can tell"
    )
    cannot = (
        "what is changed is what is annotated of every object: categories everywhere, colours and the like where the "
        "data have them. A person might still see what is meant, and take the word for a slip"
    )
    kinds: ClassVar = {"": Expectation.REJECT}

    def question(self, row: Row, annotations: Annotations, random: np.random.Generator) -> Row:
        """The expression with one word exchanged; raises LeftOut where no exchange is proved to leave nothing."""
        if len(row.boxes) != 1:
            raise LeftOut("not exactly one target")
        if _LOGIC.search(row.expression.lower()):
            raise LeftOut("parts joined or excluded: something may be left")
        annotations.objects(row)
        tokens = TOKENS.findall(row.expression)
        whole = annotations.lexicon.whole
        places = [place for place, token in enumerate(tokens) if token.lower() in whole]
        if not places:
            raise LeftOut("no word whose meaning is annotated")
        for place in random.permutation(places).tolist():
            attribute, value = whole[tokens[place].lower()]
            others = [
                word
                for word, (name, other) in whole.items()
                if name == attribute
                and other != value
                and _is_plural(word, whole) == _is_plural(tokens[place].lower(), whole)
            ]
            for word in random.permutation(sorted(others)).tolist():
                if annotations.absent(row, attribute, whole[word][1]):
                    return nothing_meant(
                        row, "".join([*tokens[:place], like(word, tokens[place]), *tokens[place + 1 :]])
                    )
        raise LeftOut("every word that would fit is true of some object")


def _is_plural(word: str, lexicon: Collection[str]) -> bool:
    """Whether a word is the plural of another one."""
    return word.endswith("s") and (word[:-1] in lexicon or word.removesuffix("es") in lexicon)
