"""Training curves of a run."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from vgbench.core.errors import UserError
from vgbench.core.files import ordinary_file


def read_curves(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Series of a run's training log (Lightning's CSV): name -> (optimiser step, value), ascending by step.

    Raises:
        UserError: if the file is no such log.
    """
    series: dict[str, dict[float, float]] = {}
    try:
        with ordinary_file(path).open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                step = float(line["step"])
                for name, text in line.items():
                    if text and name not in ("step", None):
                        series.setdefault(name, {})[step] = float(text)
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV log of a training run ({error})") from error
    return {
        name: [(step, value) for step, value in sorted(points.items()) if math.isfinite(value)]
        for name, points in series.items()
    }
