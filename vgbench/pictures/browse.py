"""A page to look at data: images with their boxes, masks and expressions, in one file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from vgbench.core.files import atomic
from vgbench.core.pages import with_policy
from vgbench.data.checks import BadSample
from vgbench.data.images import ImageFile, decode_array
from vgbench.data.table import AnnotationTable, Row
from vgbench.pictures.draw import outlines
from vgbench.pictures.examples import choose

__all__ = ["Shown", "browse"]

Shown = tuple[str, AnnotationTable, Callable[[str], ImageFile]]
"""Title, expressions, image name -> file."""

SIDE = 420  # longest side of an image on the page, in pixels


def browse(shown: Sequence[Shown], folder: Path, limit: int = 60) -> Path:
    """Write ``folder``/index.html: per table up to ``limit`` images, each with all its expressions.

    The choice depends on the images' names alone. An image that cannot be read is shown as a line that says why.

    Args:
        shown: the tables.
        limit: images per table.

    Returns:
        the page.
    """
    sections = []
    for title, table, image_path in shown:
        names = table.column("image")
        order = np.argsort(names, kind="stable")
        distinct, first = np.unique(names[order], return_index=True)
        rows = np.split(order, first[1:]) if len(order) else []
        indices = choose(distinct, limit)
        cards = [_card([table.row(int(index)) for index in rows[place]], image_path) for place in indices]
        count = (
            f"{len(indices):,} of {len(distinct):,} images, {sum(len(rows[i]) for i in indices):,} of {len(table):,} "
        )
        about = f"{count}expressions; data hash {table.hash[:16]}"
        sections.append(f"<h2>{escape(title)}</h2>\n<p>{escape(about)}</p>\n<div class=sheet>{''.join(cards)}</div>")
    page = with_policy(files("vgbench.pictures").joinpath("assets/browse.html").read_text("utf-8"))
    page = page.replace("<!--title-->", escape(" · ".join(title for title, _, _ in shown)))
    page = page.replace("<!--sections-->", "\n".join(sections))
    target = folder / "index.html"
    with atomic(target) as temporary:
        temporary.write_text(page, "utf-8", errors="replace")
    return target


def _card(rows: Sequence[Row], image_path: Callable[[str], ImageFile]) -> str:
    """One image; its objects are drawn once, each expression knows the numbers of its own."""
    first = rows[0]
    objects: dict[str, str] = {}
    lines = []
    for row in rows:
        numbers = []
        for place, box in enumerate(row.boxes.tolist()):
            mask = row.masks[place] if place < len(row.masks) else None
            name = row.categories[place] if place < len(row.categories) else ""
            identity = hashlib.sha256(json.dumps([box, mask], sort_keys=True).encode()).hexdigest()
            if identity not in objects:
                objects[identity] = _shape(len(objects), box, mask, name)
            numbers.append(list(objects).index(identity))
        badges = "".join(f"<b class=c{number % 8}>{number + 1}</b>" for number in numbers) or "<i>no target</i>"
        chosen = " ".join(map(str, numbers))
        text = escape(row.expression)
        lines.append(f'<li tabindex=0 data-objects="{chosen}" title="{escape(row.key)}">{badges} {text}</li>')
    caption = f"<figcaption>{escape(first.image)} <small>{first.width} × {first.height}</small></figcaption>"
    try:
        picture = _picture(image_path(first.image))
    except BadSample as error:
        picture = ""
        caption += f"<p class=bad>{escape(str(error))}</p>"
    size = f'viewBox="0 0 {first.width} {first.height}"'
    drawn = f"<svg {size}>{picture and _image(picture, first)}{''.join(objects.values())}</svg>"
    return f"<figure>{drawn}{caption}<ol>{''.join(lines)}</ol></figure>"


def _image(picture: str, row: Row) -> str:
    return f'<image href="data:image/jpeg;base64,{picture}" width="{row.width}" height="{row.height}"/>'


def _shape(number: int, box: Sequence[float], mask: dict[str, Any] | None, category: str) -> str:
    """Box and mask of an object as SVG in pixels of the original image."""
    x1, y1, x2, y2 = (round(value, 1) for value in box)
    path = ""
    if mask is not None:
        lines = outlines(rle.decode({"size": mask["size"], "counts": mask["counts"].encode()}))
        loops = (" ".join(f"{x},{y}" for x, y in zip(line[::2], line[1::2], strict=True)) for line in lines)
        path = f'<path class=mask fill-rule=evenodd d="{"".join(f"M{loop}Z" for loop in loops)}"/>'
    rectangle = f'<rect x="{x1}" y="{y1}" width="{max(0.0, x2 - x1):g}" height="{max(0.0, y2 - y1):g}"/>'
    title = f"<title>{number + 1} {escape(category)}</title>"
    return f'<g class="object c{number % 8}" data-object="{number}">{title}{path}{rectangle}</g>'


def _picture(file: ImageFile) -> str:
    """A small JPEG as base64."""
    image = Image.fromarray(decode_array(file))
    image.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return base64.b64encode(out.getvalue()).decode()
