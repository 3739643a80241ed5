"""RefShapes, the embedded dataset: rendered scenes in the layouts of RefCOCO and gRefCOCO."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vgbench.datasets.refshapes.language import vocabulary

if TYPE_CHECKING:
    from vgbench.datasets.refshapes.dataset import GRefShapes, RefShapes, RefShapesG, RefShapesPlus

__all__ = ["GRefShapes", "RefShapes", "RefShapesG", "RefShapesPlus", "vocabulary"]


def __getattr__(name: str) -> Any:
    """The dataset classes, imported when asked for: the worker processes that render need nothing of the readers."""
    if name in __all__:
        from vgbench.datasets.refshapes import dataset

        return getattr(dataset, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
