"""Training curves as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vgbench.core.errors import UserError
from vgbench.core.files import write_atomically
from vgbench.metrics.tasks import task_of
from vgbench.records.curves import read_curves

STYLES = ("-", "--", ":", "-.")
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")


def _is_telling(name: str) -> bool:
    """Whether a metric (``task/metric``) is worth a curve: a headline of its task, or how wrong its answers are."""
    spec, _, metric = name.rpartition("/")
    task = task_of(spec.rpartition(":")[2].partition("/")[0])
    return metric in (*task.headline, task.gradual)


def curves(log: Path, out: Path) -> None:
    """Losses per step and validation metrics per epoch of a training run, as one PNG.

    Args:
        log: CSV log of Lightning with columns step, epoch, train/*, val/*.

    Raises:
        UserError: if ``log`` is not such a file or holds no curve.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = read_curves(log)
    losses = {name[6:]: points for name, points in series.items() if name.startswith("train/") and points}
    metrics = {name[4:]: points for name, points in series.items() if name.startswith("val/") and points}
    metrics = {name: points for name, points in metrics.items() if _is_telling(name)} or metrics
    if not losses and not metrics:
        raise UserError(f"{log}: no train/* or val/* column with a number in it")
    epochs = dict(series.get("epoch", ()))
    metrics = {
        name: [(epochs.get(step, step) + 1, value) for step, value in points] for name, points in metrics.items()
    }
    parts = [part for part in (("loss", "step", losses), ("validation (%)", "epoch", metrics)) if part[2]]
    figure = Figure(figsize=(5.6 * len(parts), 3.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for number, (title, unit, lines) in enumerate(parts, start=1):
        axes = figure.add_subplot(1, len(parts), number)
        _plot(axes, lines)
        axes.set_xlabel(unit)
        axes.set_ylabel(title)
        if title == "loss" and all(value > 0 for points in lines.values() for _, value in points):
            _logarithmic(axes)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, buffer.getvalue())


def _plot(axes: Any, lines: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    from matplotlib.ticker import MaxNLocator

    for place, (name, points) in enumerate(lines.items()):
        steps, values = zip(*points, strict=True)
        marker = "o" if len(points) <= 40 else None
        style = STYLES[place // len(COLOURS) % len(STYLES)]
        colour = COLOURS[place % len(COLOURS)]
        axes.plot(steps, values, style, color=colour, label=name, marker=marker, markersize=3, linewidth=1.4)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, framealpha=0.7, edgecolor="none", ncols=1 + len(lines) // 9)


def _logarithmic(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
