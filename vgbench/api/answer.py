"""What a model says about one expression, as people look at it and go on with it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from vgbench.core.errors import require_extra
from vgbench.data import rle
from vgbench.types import Prediction, as_array

if TYPE_CHECKING:
    from supervision import Detections


@dataclass(frozen=True, eq=False)
class Answer:
    """Where an expression points to, in pixels of the picture.

    Attributes:
        text: the expression.
        image: the picture, uint8 RGB [H, W, 3].
        boxes: float32 [n, 4], x1 y1 x2 y2, the best first; [0, 4] if the model gives none.
        scores: float64 [n] in [0, 1], never increasing.
        rle: the mask as COCO RLE ``{"size": [H, W], "counts": str}``, or None.
        no_target: the model's own decision that nothing is meant; None: it makes none.
        point: (x, y) of the peak of the heat map, or None.
        heatmap: float32 [h, w] of any size covering the picture, or None.
    """

    text: str
    image: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    rle: dict[str, Any] | None = None
    no_target: bool | None = None
    point: tuple[int, int] | None = None
    heatmap: np.ndarray | None = None

    @classmethod
    def of(cls, prediction: Prediction, text: str, image: np.ndarray) -> Answer:
        """From what a method returned."""
        return cls(
            text,
            image,
            as_array(prediction.boxes, np.float32).reshape(-1, 4),
            as_array(prediction.scores, np.float64).reshape(-1),
            prediction.mask,
            prediction.no_target,
            prediction.point,
            None if prediction.heatmap is None else as_array(prediction.heatmap, np.float32),
        )

    @property
    def prediction(self) -> Prediction:
        """As the suite's metrics and pictures take it."""
        return Prediction(
            self.boxes,
            self.scores,
            mask=self.rle,
            no_target=self.no_target,
            point=self.point,
            heatmap=self.heatmap,
        )

    @property
    def box(self) -> np.ndarray | None:
        """The best box, float32 [4], or None."""
        return self.boxes[0] if len(self.boxes) and not self.no_target else None

    @property
    def mask(self) -> np.ndarray | None:
        """The mask as bool [H, W], or None."""
        return None if self.rle is None else rle.decode(self.rle).astype(bool)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without picture and heat map."""
        return {
            "text": self.text,
            "boxes": self.boxes.astype(np.float64).round(2).tolist(),
            "scores": self.scores.round(4).tolist(),
            "mask": self.rle,
            "no_target": self.no_target,
            "point": None if self.point is None else list(self.point),
        }

    def draw(self, size: int = 480) -> Image.Image:
        """The picture with boxes, mask and heat map, the expression below; ``size``: longer side of the picture."""
        from vgbench.pictures.draw import draw

        return draw(self.image, self.text, prediction=self.prediction, size=size)

    def show(self, size: int = 480) -> None:
        """Show :meth:`draw`: in a notebook below the cell, else in the system's viewer."""
        picture = self.draw(size)
        try:
            from IPython import get_ipython
            from IPython.display import display
        except ImportError:
            picture.show()
            return
        if get_ipython() is None:
            picture.show()
        else:
            display(picture)

    def detections(self) -> Detections:
        """As supervision's detections, one per box.

        Raises:
            UserError: if supervision is not installed.
        """
        supervision = require_extra("supervision", "supervision", "Detections")
        masks = None if self.rle is None or len(self.boxes) != 1 else self.mask[None]  # type: ignore[index]
        return supervision.Detections(
            xyxy=self.boxes.astype(np.float32),
            mask=masks,
            confidence=self.scores.astype(np.float32),
            class_id=np.zeros(len(self.boxes), dtype=int),
            data={"class_name": np.array([self.text] * len(self.boxes), dtype=object)},
        )

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        self.draw().save(out, "PNG")
        return out.getvalue()

    def __repr__(self) -> str:
        best = "nothing" if self.box is None else f"{self.box.round(1).tolist()} (score {self.scores[0]:.2f})"
        parts = [
            f"{len(self.boxes)} boxes",
            *(["mask"] if self.rle else []),
            *(["heat map"] * (self.heatmap is not None)),
        ]
        return f"Answer({self.text!r}: {best}; {', '.join(parts)})"
