"""Images that two splits share: what a training has seen of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from vgbench.core.errors import UserError
from vgbench.core.files import atomic
from vgbench.data.table import AnnotationTable

ImageAliases = Mapping[tuple[str, int], tuple[str, int]]  # (source, image id) -> (source, image id)
SEEN_FILE = "train_images.parquet"  # in a run folder


@dataclass(frozen=True)
class Leakage:
    """Overlap of one training table with one evaluation table.

    Attributes:
        images: evaluation images that the training table contains.
        evaluation_images: all evaluation images.
        training_expressions: training expressions on those images.
    """

    images: int
    evaluation_images: int
    training_expressions: int


def image_keys(table: AnnotationTable, aliases: ImageAliases | None = None) -> np.ndarray:
    """One text per row that names the image whatever the data set calls it: "coco:581857".

    Args:
        table: any annotation table.
        aliases: images of one collection that are images of another, see
            :meth:`~vgbench.data.dataset.GroundingData.image_aliases`.
    """
    others = aliases or {}
    ids, sources = table.column("image_id").tolist(), table.arrow.column("source").to_pylist()
    images = [others.get(image, image) for image in zip(sources, ids, strict=True)]
    return np.array([f"{source}:{number}" for source, number in images])


@dataclass(frozen=True)
class SeenImages:
    """The images that a model was trained on.

    Attributes:
        keys: sorted names as :func:`image_keys` gives them, each once; of synthetic images the ones that they are
            painted from too.
        complete: False if the model started from weights whose training images nobody knows.
    """

    keys: np.ndarray
    complete: bool = True

    @classmethod
    def of(cls, train: AnnotationTable, aliases: ImageAliases | None = None) -> SeenImages:
        painted = np.array(train.info.get("painted_from", []), dtype=str)  # whose pixels synthetic images are made of
        return cls(np.unique(np.concatenate([image_keys(train, aliases), painted])))

    def __or__(self, earlier: SeenImages) -> SeenImages:
        """With those of an earlier stage of the training."""
        return SeenImages(np.union1d(self.keys, earlier.keys), self.complete and earlier.complete)

    def among(self, evaluation: AnnotationTable, aliases: ImageAliases | None = None) -> int | None:
        """How many images of ``evaluation`` the model was trained on; None if none is known and some are not known."""
        shared = len(np.intersect1d(self.keys, image_keys(evaluation, aliases)))
        return shared if shared or self.complete else None

    def save(self, folder: Path) -> None:
        """Into a run folder."""
        table = pa.table({"image": pa.array(self.keys.tolist(), pa.string())})
        with atomic(folder / SEEN_FILE) as temporary:
            parquet.write_table(table.replace_schema_metadata({"complete": str(self.complete)}), temporary)

    @classmethod
    def read(cls, folder: Path) -> SeenImages | None:
        """Of a run folder; None if it is none, or one of an evaluation.

        Raises:
            UserError: if the file is damaged.
        """
        path = folder / SEEN_FILE
        if not path.is_file():
            return None
        try:
            table = parquet.read_table(path)
            keys = np.array(table.column("image").to_pylist(), dtype=str)
            return cls(keys, table.schema.metadata[b"complete"] == b"True")
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{path}: not a list of training images ({reason}); copy it again, or remove it") from None


def leakage(train: AnnotationTable, evaluation: AnnotationTable, aliases: ImageAliases | None = None) -> Leakage:
    """How many images of ``evaluation`` are in ``train`` (see :func:`image_keys` for ``aliases``)."""
    evaluated = np.unique(image_keys(evaluation, aliases))
    shared = np.intersect1d(SeenImages.of(train, aliases).keys, evaluated)
    return Leakage(len(shared), len(evaluated), int(np.isin(image_keys(train, aliases), shared).sum()))


def without_images(
    train: AnnotationTable, evaluations: list[AnnotationTable], aliases: ImageAliases | None = None
) -> AnnotationTable:
    """``train`` without the images of ``evaluations``; ``info["excluded_images"]`` says how many were left out."""
    training = image_keys(train, aliases)
    unwanted = np.unique(np.concatenate([image_keys(table, aliases) for table in evaluations]))
    leaked = np.isin(training, unwanted)
    clean = train.take(np.flatnonzero(~leaked))
    before = train.info.get("excluded_images", 0)
    clean.info = {**train.info, "excluded_images": before + len(np.unique(training[leaked]))}
    return clean


def exclude_leaked(
    trains: Sequence[AnnotationTable],
    evaluations: list[AnnotationTable],
    aliases: ImageAliases | None = None,
) -> list[AnnotationTable]:
    """Training tables without the images of ``evaluations`` (:func:`without_images` each).

    Raises:
        UserError: if nothing is left, or if a table's images are painted from pixels of evaluation images: then no
            row can be told to be clean.
    """
    clean = [without_images(table, evaluations, aliases) for table in trains]
    name = clean[0].info.get("dataset")
    if not len(clean[0]):
        raise UserError(f"recipe.exclude_leaked: every training image of {name} is in an evaluation split of this run")
    evaluated = set().union(*(image_keys(table, aliases).tolist() for table in evaluations))
    for table in clean:
        painted = evaluated.intersection(table.info.get("painted_from", []))
        if painted:
            raise UserError(
                f"recipe.exclude_leaked: the images of {table.info.get('dataset')} are painted from {len(painted):,} "
                "images of this run's evaluation splits; make them again from other images, or leave out extra_train"
            )
    return clean
