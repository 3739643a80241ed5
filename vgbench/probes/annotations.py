"""What a probe may know of a split: its expressions, all objects of its images, what words mean."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from vgbench.data.dataset import GroundingData
from vgbench.data.scene import CATEGORY, SceneObject, Scenes, read_scenes
from vgbench.data.table import AnnotationTable, Row
from vgbench.probes.wording import Lexicon


class LeftOut(Exception):
    """An expression that a probe cannot ask about, because its effect there is not proved; the text is the reason."""


class Annotations:
    """A split as probes see it.

    Args:
        table: its expressions.
        scenes: all objects of its images, or None where only those that are referred to are annotated.
        attribute_words: what words say (:meth:`GroundingData.attribute_words`).
    """

    def __init__(
        self,
        table: AnnotationTable,
        scenes: Scenes | None = None,
        attribute_words: dict[str, tuple[str, str]] | None = None,
    ) -> None:
        self.table = table
        self.scenes = scenes
        self.attribute_words = attribute_words or {}

    @classmethod
    def of(cls, data: GroundingData, split: str, table: AnnotationTable, objects: str | None = None) -> Annotations:
        """The annotations of a split.

        Args:
            table: its expressions, or the first of them.
            objects: a COCO file with all objects, for layouts that have only those that are referred to.

        Raises:
            UserError: if the file cannot be read.
        """
        from pathlib import Path

        scenes = data.scenes(split) if objects is None else read_scenes(Path(objects).expanduser(), table)
        return cls(table, scenes, dict(data.attribute_words()))

    @cached_property
    def categories(self) -> frozenset[str]:
        """Every category of the annotations."""
        names = {name for row in self.table.arrow.column("categories").to_pylist() for name in row}
        if self.scenes is not None:
            names |= {item.category for objects in self.scenes.values() for item in objects}
        return frozenset(names)

    @cached_property
    def lexicon(self) -> Lexicon:
        """What the words of the split mean."""
        return Lexicon(self.categories, self.attribute_words)

    def objects(self, row: Row) -> tuple[SceneObject, ...]:
        """All objects of an image.

        Raises:
            LeftOut: if they are not all annotated.
        """
        if self.scenes is None:
            raise LeftOut("the annotations hold only the objects that are referred to (eval.stress_objects=FILE)")
        objects = self.scenes.get(row.image_id)
        if objects is None:
            raise LeftOut("its image is not among those whose objects are annotated")
        return objects

    def target(self, row: Row) -> SceneObject:
        """The only target of an expression.

        Raises:
            LeftOut: if it has none or several, or it is not among the objects of the image.
        """
        if len(row.boxes) != 1:
            raise LeftOut("not exactly one target")
        box = tuple(row.boxes[0].tolist())
        for item in self.objects(row):
            if (row.ann_ids and item.id == row.ann_ids[0]) or item.box == box:
                return item
        raise LeftOut("its target is not among the annotated objects")

    def peers(self, row: Row) -> list[SceneObject]:
        """The other objects of the target's category; raises LeftOut as :meth:`target`."""
        target = self.target(row)
        return [item for item in self.objects(row) if item.category == target.category and item.id != target.id]

    def absent(self, row: Row, attribute: str, value: str) -> bool:
        """Whether no object of the image has this value; raises LeftOut where that is not known."""
        objects = self.objects(row)
        if attribute == CATEGORY:
            names = [item.category.lower() for item in objects]
            return not any(value.lower() in name or name in value.lower() for name in names)  # bear, teddy bear
        if any(attribute not in item.attributes for item in objects):
            raise LeftOut(f"{attribute} is not annotated of every object")
        return all(item.attributes[attribute] != value for item in objects)

    def answering(self, row: Row, meanings: Sequence[tuple[str, str]]) -> list[SceneObject]:
        """The objects of the image that have all these values of attributes."""
        return [
            item
            for item in self.objects(row)
            if all(item.attributes.get(attribute) == value for attribute, value in meanings)
        ]
