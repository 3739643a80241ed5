"""Probes for models that run elsewhere: questions as files, and where results of them lie.

A folder of questions holds ``stress.json`` (data set, split, seed, probes), ``plain.jsonl`` and a file for each probe
with a line per question: key, image, expression, width, height. Changed images lie in ``images/``; the others are named
where they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vgbench.core.errors import UserError
from vgbench.core.files import write_atomically
from vgbench.data.checks import BadSample, read_json, take
from vgbench.data.dataset import GroundingData
from vgbench.data.images import decode_image
from vgbench.data.table import AnnotationTable
from vgbench.probes.annotations import Annotations
from vgbench.probes.base import Expectation
from vgbench.probes.catalog import parse_all
from vgbench.probes.questions import Questions, ask

MANIFEST = "stress.json"
PLAIN = "plain"
VERSION = 1


def file_stem(name: str) -> str:
    """A probe, or a split of questions, as the name of a file."""
    return name.replace(":", "-")


def outcomes_file(folder: Path, split: str, output: str) -> Path:
    """Where the outcomes of a probe's questions lie in a run folder."""
    name = file_stem(split)
    return folder / "stress" / (f"{name}.parquet" if output == "main" else f"{name}-{output}.parquet")


@dataclass(frozen=True)
class Inquiry:
    """Which questions are asked: all that it takes to make them again.

    Attributes:
        dataset: node of its configuration.
        split: its name.
        probes: as they are typed.
        seed: of all random choices.
        limit: the first so many expressions; None: all.
        objects: a COCO file with all objects, where the layout has only those that are referred to.
    """

    dataset: Mapping[str, Any]
    split: str
    probes: tuple[str, ...]
    seed: int = 0
    limit: int | None = None
    objects: str | None = None

    def annotations(self, data: GroundingData) -> Annotations:
        """The split that is asked about."""
        table = data.load(self.split)
        if self.limit is not None:
            table = table.take(range(min(self.limit, len(table))))
        return Annotations.of(data, self.split, table, self.objects)

    def questions(self, annotations: Annotations) -> list[Questions]:
        """Of every probe that has any."""
        asked = [ask(probe, annotations, self.split, self.seed) for probe in parse_all(self.probes)]
        return [questions for questions in asked if len(questions.rows)]


def write_questions(inquiry: Inquiry, data: GroundingData, folder: Path) -> list[Questions]:
    """Write a folder of questions.

    Raises:
        UserError: if it holds other questions already, or an image cannot be read.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"{folder}: is there already; name a new folder")
    annotations = inquiry.annotations(data)
    asked = inquiry.questions(annotations)
    folder.mkdir(parents=True, exist_ok=True)
    _write_lines(
        folder / f"{PLAIN}.jsonl", annotations.table, [_image(data, name) for name in _names(annotations.table)]
    )
    hashes = {PLAIN: annotations.table.hash}
    for questions in asked:
        if questions.probe.expectation is Expectation.SAME:
            continue  # the plain answers are looked at
        spec = questions.probe.spec
        images = [_image(data, name) for name in _names(questions.table)]
        if questions.probe.changes_images:
            images = _write_images(questions, data, folder / "images" / file_stem(spec))
        _write_lines(folder / f"{file_stem(spec)}.jsonl", questions.table, images)
        hashes[spec] = questions.hash
    about = {
        "version": VERSION,
        "dataset": dict(inquiry.dataset),
        "split": inquiry.split,
        "probes": list(inquiry.probes),
        "seed": inquiry.seed,
        "limit": inquiry.limit,
        "objects": inquiry.objects,
        "hashes": hashes,
        "notes": [questions.note for questions in asked],
    }
    write_atomically(folder / MANIFEST, json.dumps(about, indent=1).encode())
    return asked


def read_inquiry(folder: Path) -> tuple[Inquiry, dict[str, str]]:
    """What the questions of a folder are, and the hash of each.

    Raises:
        UserError: if it holds no questions.
    """
    file = folder / MANIFEST
    content = read_json(file) if file.is_file() else None
    if content is None:
        raise UserError(f"{folder}: holds no {MANIFEST}; vgbench stress export makes such a folder")
    try:
        limit, objects = content.get("limit"), content.get("objects")
        inquiry = Inquiry(
            take(content, "dataset", dict),
            take(content, "split", str),
            tuple(map(str, take(content, "probes", list))),
            take(content, "seed", int),
            None if limit is None else take(content, "limit", int),
            None if objects is None else take(content, "objects", str),
        )
        return inquiry, {str(name): str(value) for name, value in take(content, "hashes", dict).items()}
    except (BadSample, AttributeError) as error:
        raise UserError(f"{file}: damaged ({error}); export the questions again") from None


def answers_file(folder: Path, name: str) -> Path | None:
    """The file with the answers to the questions of ``name`` ("plain" or a probe); None if there is none.

    Raises:
        UserError: if there are several.
    """
    files = sorted(file for file in folder.glob(f"{file_stem(name)}.*") if file.is_file())
    if len(files) > 1:
        raise UserError(f"{folder}: {files[0].name} and {files[1].name} both answer {name}; leave one")
    return files[0] if files else None


def _names(table: AnnotationTable) -> Sequence[str]:
    return table.column("image").tolist()


def _image(data: GroundingData, name: str) -> str:
    return str(data.image_path(name))


def _write_lines(path: Path, table: AnnotationTable, images: Sequence[str]) -> None:
    lines = []
    for row, image in zip(table, images, strict=True):
        line = {"key": row.key, "image": image, "expression": row.expression, "width": row.width, "height": row.height}
        lines.append(json.dumps(line, ensure_ascii=False))
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def _write_images(questions: Questions, data: GroundingData, folder: Path) -> list[str]:
    """The changed images as PNG, numbered; their paths."""
    folder.mkdir(parents=True)
    paths = []
    for index, name in enumerate(_names(questions.plain)):
        try:
            image = questions.picture(index, decode_image(data.image_path(name)))
        except BadSample as error:
            raise UserError(f"{error}; mend the file, its questions cannot be asked") from None
        path = folder / f"{index:06d}.png"
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
        paths.append(str(path.resolve()))
    return paths
