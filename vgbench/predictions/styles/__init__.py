"""Answer styles: how families of vision-language models write boxes and points, and what the numbers mean.

``style("qwen2.5-vl").read(text, image_size=(640, 480), model_size=(644, 476)).boxes``
"""

from __future__ import annotations

import difflib

from vgbench.core.errors import UserError
from vgbench.core.registry import styles as added_styles
from vgbench.predictions.coordinates import Coordinates
from vgbench.predictions.styles import binned, marked
from vgbench.predictions.styles.base import AnswerStyle

OWN_STYLES = {family.name: family for family in (*marked.FAMILIES, *binned.FAMILIES)}


def style_classes() -> dict[str, type[AnswerStyle]]:
    """All styles by name, those of other packages and plug-ins included."""
    return dict(sorted({**{name: added_styles.load(name) for name in added_styles}, **OWN_STYLES}.items()))


def style(name: str, coordinates: Coordinates | None = None) -> AnswerStyle:
    """The style called ``name``.

    Args:
        name: as ``vgbench list styles`` prints it.
        coordinates: what the numbers mean, where somebody states something else than the family documents.

    Raises:
        UserError: if there is none; the message lists what there is.
    """
    if name not in OWN_STYLES and name not in added_styles:
        names = list(style_classes())
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UserError(f"style={name}: no such answer style; {hint}there are: {', '.join(names)}")
    family = OWN_STYLES[name] if name in OWN_STYLES else added_styles.load(name)
    return family(coordinates)  # type: ignore[no-any-return]
