"""``vgbench predict``: ground expressions in images."""

from __future__ import annotations

import json
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vgbench.config.compose import compose
from vgbench.core.errors import UserError
from vgbench.core.files import write_atomically

if TYPE_CHECKING:
    from vgbench.batches.grounding import Query
    from vgbench.types import Prediction

NAME = "predict"
HELP = "Ground expressions in images: draws the results, prints a line of JSON for each."
EXAMPLE = 'vgbench predict image.jpg "the red mug left of the sink" checkpoint=runs/alvg-refcoco'
TAKES_PLUGINS = True

TOY = (
    "note: no checkpoint= was given: toy weights answer, trained on rendered scenes; they know nothing of photographs; "
    "checkpoint=runs/RUN, hf://ORG/NAME or an official file takes a real model"
)

FORMS = (
    'Several at once: vgbench predict A.jpg B.jpg -e "the red mug" -e "the sink" checkpoint=..., or a folder of '
    "images. Every expression is asked of every image. Photographs are turned as their EXIF tag says, and boxes refer "
    "to them as they are shown."
)
IMAGE_ENDINGS = frozenset(
    (
        ".avif",
        ".bmp",
        ".gif",
        ".jpeg",
        ".jpg",
        ".jpe",
        ".jfif",
        ".png",
        ".ppm",
        ".pgm",
        ".pnm",
        ".tif",
        ".tiff",
        ".webp",
    )
)
_OVERRIDE = re.compile(r"[+~]{0,2}[A-Za-z_][\w.@/]*=.*|~[A-Za-z_][\w.@/]*", re.DOTALL)


class Request(NamedTuple):
    """What was typed: images and folders, expressions, configuration."""

    places: list[Path]
    expressions: list[str]
    overrides: list[str]


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of this command."""
    parser.description = f"{parser.description} {FORMS}"
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="IMAGE... [TEXT] [key=value]",
        help="images or folders of images, one expression (or several with -e), checkpoint=... and the like",
    )
    parser.add_argument("-e", "--expression", action="append", default=[], metavar="TEXT", help="may be repeated")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        help="picture to write (default: <image>.grounded.png in the working directory); for several, a folder",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the answers there too, as one JSON list")
    parser.add_argument("--no-pictures", action="store_true", help="draw nothing")


def execute(arguments: Namespace) -> int:
    """Ground every expression in every image; draw it, print one line of JSON per answer and output of the method.

    Raises:
        UserError: if an image cannot be read, an expression has no word, or there is no checkpoint.
    """
    request = _request(arguments)
    toy = not any(item.startswith(("checkpoint=", "method=")) for item in request.overrides)
    if toy:
        request.overrides.append("checkpoint=shipped")
    arguments.overrides = request.overrides
    from vgbench.batches.grounding import check_expression

    for text in request.expressions:
        check_expression(text)
    images = _images(request.places)
    several = len(images) * len(request.expressions) > 1
    if several and arguments.output is not None and arguments.output.suffix.lower() in IMAGE_ENDINGS:
        raise UserError(f"-o {arguments.output}: there will be several pictures; give a folder")
    answers: list[dict[str, Any]] = []
    reader = _Reader(images, request.expressions)
    for query, path, method, predictions in _answers(reader, request.overrides):
        if toy and not answers:
            print(TOY, file=sys.stderr)
        for output, prediction in predictions.items():
            answer = _answer(path, query, method, output, prediction)
            picture = None if arguments.no_pictures else _place(arguments.output, path, several, len(answers), output)
            answer["picture"] = picture and _draw(query, prediction, picture)
            print(json.dumps(answer), flush=True)
            answers.append(answer)
    if arguments.json is not None:
        write_atomically(arguments.json, (json.dumps(answers, indent=1) + "\n").encode())
    if reader.problems:
        raise UserError(
            f"{len(reader.problems)} of {len(images)} images were left out, the first: {reader.problems[0]}"
        )
    return 0


def _request(arguments: Namespace) -> Request:
    """Sort what was typed: without ``-e`` the last item that is no configuration is the expression.

    Raises:
        UserError: if there is no image or no expression.
    """
    items: list[str] = arguments.overrides
    if arguments.expression:
        rest = [item for item in items if _is_override(item)]
        places = [item for item in items if not _is_override(item)]
        if not places:
            raise UserError("predict: no image; give one before the expressions")
        return Request([Path(place).expanduser() for place in places], arguments.expression, rest)
    if all(map(_is_override, items)) and not (items and Path(items[0]).exists()):
        raise UserError('predict: no image and no expression; e.g. vgbench predict photo.jpg "the red mug"')
    head, tail = items[:2], items[2:]  # the form with one image: the second item is an expression, whatever is in it
    if len(head) < 2 or (_is_override(head[1]) and all(map(_is_override, tail))):
        raise UserError(f'predict {head[0]}: no expression; say what to find, e.g. "the red mug" or -e "the red mug"')
    while tail and not all(map(_is_override, tail)):
        position = next(number for number, item in enumerate(tail) if not _is_override(item))
        head.append(tail.pop(position))
    return Request([Path(place).expanduser() for place in head[:-1]], head[-1:], tail)


def _is_override(item: str) -> bool:
    return _OVERRIDE.fullmatch(item) is not None and not Path(item).exists()


def _images(places: Sequence[Path]) -> list[Path]:
    """The images, those of folders in the order of their names."""
    images: list[Path] = []
    for place in places:
        if not place.is_dir():
            images.append(place)
            continue
        inside = sorted(file for file in place.iterdir() if file.suffix.lower() in IMAGE_ENDINGS and file.is_file())
        if not inside:
            raise UserError(f"{place}: a folder without images ({', '.join(sorted(IMAGE_ENDINGS))})")
        images += inside
    return images


class _Reader:
    """Every expression on every image, decoded one after the other. Of several images those that cannot be read are
    left out and kept in ``problems``; a lone one raises UserError."""

    def __init__(self, images: Sequence[Path], expressions: Sequence[str]) -> None:
        self.images, self.expressions = images, expressions
        self.problems: list[str] = []

    def __iter__(self) -> Iterator[tuple[Query, Path]]:
        from vgbench.batches.grounding import Query
        from vgbench.data.checks import BadSample
        from vgbench.data.images import decode_image

        for path in self.images:
            try:
                pixels = decode_image(path, upright=True)
            except BadSample as error:
                if len(self.images) == 1:
                    raise UserError(str(error)) from None
                self.problems.append(str(error))
                continue
            for text in self.expressions:
                yield Query(path.name, pixels, text), path


def _answers(reader: _Reader, overrides: Sequence[str]) -> Iterator[tuple[Query, Path, str, dict[str, Prediction]]]:
    """Predictions by output, in batches of ``eval.batch_size``, on the GPU if there is one; with the method's name."""
    from vgbench.batches.grounding import ground
    from vgbench.training.setup import checkpointed_method
    from vgbench.training.speed import compute_device, evaluation_batch

    config = compose(overrides)
    queries = iter(reader)
    size = evaluation_batch(config)
    batch = list(islice(queries, size))  # an image that cannot be read is said before a model is built
    method, _, _ = checkpointed_method(config)
    device = compute_device(config)
    notes: set[str] = set()
    while batch:
        grounded = ground(method, [query for query, _ in batch], device)
        if grounded.note and grounded.note not in notes:
            print(f"note: {grounded.note}", file=sys.stderr)
            notes.add(grounded.note)
        for (query, path), predictions in zip(batch, grounded.predictions, strict=True):
            yield query, path, method.name, predictions
        batch = list(islice(queries, size))


def _answer(path: Path, query: Query, method: str, output: str, prediction: Prediction) -> dict[str, Any]:
    words = {} if prediction.answer is None else {"words": prediction.answer}
    return {
        "image": str(path),
        "width": query.pixels.shape[-1],
        "height": query.pixels.shape[-2],
        "expression": query.expression,
        "method": method,
        "prediction_set": output,
        "boxes": [[round(value, 2) for value in box] for box in prediction.boxes.tolist()],
        "scores": [round(value, 4) for value in prediction.scores.tolist()],
        "no_target": prediction.no_target,
        "point": prediction.point,
        "mask": prediction.mask,
        **words,
    }


def _place(output: Path | None, image: Path, several: bool, number: int, name: str) -> Path:
    """Where the picture of an answer goes; of several by their numbers, so that none is written over another."""
    if several:
        return (output or Path()) / f"{image.stem}.grounded-{number + 1:03d}.png"
    picture = output or Path(f"{image.stem}.grounded.png")
    if output is not None and output.is_dir():
        picture = output / f"{image.stem}.grounded.png"
    return picture if number == 0 else picture.with_name(f"{picture.stem}-{name}{picture.suffix}")


def _draw(query: Query, prediction: Prediction, picture: Path) -> str | None:
    """Draw an answer; one that cannot be drawn is told all the same."""
    from vgbench.pictures import draw

    try:
        draw.save(draw.draw(query.pixels, query.expression, prediction=prediction), picture)
    except OSError as error:
        reason = error.strerror or error
        print(f"note: {picture}: the picture was not written ({reason}); give -o FILE", file=sys.stderr)
        return None
    return str(picture)
