"""What probes say is meant, against the logic that the expressions were made from."""

from __future__ import annotations

from typing import Any

import pytest

from tests.datasets.test_refshapes import SIDE, World, pool_files
from vgbench.data.scene import CATEGORY
from vgbench.datasets.refshapes import RefShapes
from vgbench.probes.annotations import Annotations
from vgbench.probes.catalog import parse
from vgbench.probes.questions import Questions, ask
from vgbench.probes.wording import words

OTHER = {"left": "right", "right": "left"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> RefShapes:
    return RefShapes(cache_dir=tmp_path_factory.mktemp("cache"), images={"train": 40, "val": 2, "testA": 2, "testB": 2})


@pytest.fixture(scope="module")
def logic(data: RefShapes) -> tuple[dict[str, Any], dict[str, Any]]:
    _, scenes, forms = pool_files(data)
    return scenes, forms


def questions(data: RefShapes, spec: str) -> Questions:
    annotations = Annotations.of(data, "train", data.load("train"))
    (probe,) = parse(spec)
    return ask(probe, annotations, "train")


def exchanged(form: Any) -> Any:
    """A logical form with left and right exchanged."""
    if isinstance(form, list):
        return [exchanged(part) for part in form]
    return " ".join(OTHER.get(word, word) for word in form.split()) if isinstance(form, str) else form


def with_value(form: Any, attribute: str, old: str, new: str) -> Any:
    """A logical form in which one value of an attribute is another."""
    if isinstance(form, list):
        return [with_value(part, attribute, old, new) for part in form]
    if isinstance(form, dict) and form.get(attribute) == old:
        return {**form, attribute: new}
    return form


def meaning(world: World, form: Any) -> set[int]:
    """What a form denotes; nothing if what others are related to is not there."""
    try:
        return world.meaning(form)
    except ValueError:
        return set()


def test_swapped_expressions_mean_the_other_object(data: RefShapes, logic: tuple[Any, Any]) -> None:
    scenes, forms = logic
    asked = questions(data, "swap")
    assert len(asked.rows) > 10
    for row in asked.table:
        assert meaning(World(scenes[str(row.image_id)]), exchanged(forms[str(row.sent_id)])) == set(row.ann_ids)


def test_mirrored_expressions_mean_the_mirrored_object(data: RefShapes, logic: tuple[Any, Any]) -> None:
    scenes, forms = logic
    for row in questions(data, "mirror").table:
        world = World(scenes[str(row.image_id)])
        world.centre = {item: (SIDE - x, y) for item, (x, y) in world.centre.items()}
        assert meaning(world, exchanged(forms[str(row.sent_id)])) == set(row.ann_ids), row.expression
        x, y = world.centre[row.ann_ids[0]]
        assert row.boxes[0, [0, 2]].mean() == x and row.boxes[0, [1, 3]].mean() == y


def test_expressions_that_mean_nothing(data: RefShapes, logic: tuple[Any, Any]) -> None:
    scenes, forms = logic
    sentences = {row.expression: forms[str(row.sent_id)] for row in data.load("train")}
    for row in questions(data, "nothing").table:
        assert meaning(World(scenes[str(row.image_id)]), sentences[row.expression]) == set(), row.expression
    asked = questions(data, "one_word")
    lexicon = asked.annotations.lexicon.whole
    assert len(asked.rows) > 100
    for row, plain in zip(asked.table, asked.plain, strict=True):
        pairs = zip(words(plain.expression), words(row.expression), strict=True)
        ((before, after),) = [(old, new) for old, new in pairs if old != new]
        (attribute, old), (_, new) = lexicon[before], lexicon[after]
        form = with_value(forms[str(row.sent_id)], "shape" if attribute == CATEGORY else attribute, old, new)
        assert form != forms[str(row.sent_id)], (plain.expression, row.expression)
        assert meaning(World(scenes[str(row.image_id)]), form) == set(), (plain.expression, row.expression)
