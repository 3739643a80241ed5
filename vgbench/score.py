"""Score predictions: annotation table and predictions file in, numbers with intervals out. No model is involved."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vgbench.core.errors import UserError
from vgbench.data.rle import rectangle
from vgbench.data.table import AnnotationTable
from vgbench.foreign import Reading, read_foreign
from vgbench.metrics import GroundingMetric, Outcomes, Pairs, make_metric, primary_metric
from vgbench.metrics.bootstrap import intervals
from vgbench.predictions import Predictions, PredictionWriter, align, check, read_predictions
from vgbench.types import Prediction

if TYPE_CHECKING:
    from vgbench.data.dataset import GroundingData

__all__ = [
    "Evaluator",
    "Score",
    "ScoreReport",
    "benchmark",
    "default_tasks",
    "evaluate_predictions",
    "format_report",
    "primary_metric",
    "register",
    "trivial_predictions",
]

_CHUNK = 2048  # expressions scored at once


@dataclass(frozen=True)
class Score:
    """One number in percent, NaN if it is not defined on this split.

    Attributes:
        task, variant, metric: what it is; ``variant`` is "default" or a named variant.
        value, low, high: with its 95 % bootstrap interval over images (NaN if no resamples were asked for).
        n: expressions that count (for N-acc: those without a target).
        resolution: frame of the boxes and masks, "original" unless the variant says otherwise.
    """

    task: str
    variant: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    resolution: str = "original"

    @property
    def name(self) -> str:
        """``task/metric``, or ``task/variant/metric``."""
        return "/".join([self.task, *([] if self.variant == "default" else [self.variant]), self.metric])


@dataclass
class ScoreReport:
    """Everything that was computed on one split.

    Attributes:
        dataset, split, data_hash: of the table.
        expressions, images: in the table.
        scores: by full name (``rec/prec@0.5``, ``rec/giou/prec@0.5``).
        outcomes: per-expression results by metric (``rec``, ``rec/giou``), for paired tests and slices.
        primary: full name of the number to look at first.
    """

    dataset: str
    split: str
    data_hash: str
    expressions: int
    images: int
    scores: dict[str, Score]
    outcomes: dict[str, Outcomes]
    primary: str

    @property
    def values(self) -> dict[str, float]:
        """Full name -> percent."""
        return {name: score.value for name, score in self.scores.items()}

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without the per-expression results; numbers that are not defined are None."""
        scores = {
            name: {key: None if isinstance(v, float) and math.isnan(v) else v for key, v in vars(score).items()}
            for name, score in self.scores.items()
        }
        own = {name: value for name, value in vars(self).items() if name not in ("scores", "outcomes")}
        return {**own, "scores": scores}


class Evaluator:
    """Several metrics on one table, fed batch by batch, on one process or many.

    Args:
        table: the split; the same on every process.
        specs: ``task`` or ``task/variant`` each.
    """

    def __init__(self, table: AnnotationTable, specs: Sequence[str]) -> None:
        self.table = table
        self.metrics: dict[str, GroundingMetric] = {spec: make_metric(spec) for spec in dict.fromkeys(specs)}
        self._row = {key: row for row, key in enumerate(table.column("key"))}

    def to(self, device: torch.device | str) -> Evaluator:
        """Keep states on ``device`` (where the process group communicates)."""
        self.metrics = {spec: metric.to(device) for spec, metric in self.metrics.items()}
        return self

    def update(self, keys: Sequence[str], predictions: Sequence[Prediction]) -> None:
        """Add the predictions of a batch, as the method returned them."""
        self.add(Predictions.from_list(keys, predictions), np.array([self._row[key] for key in keys], dtype=np.int64))

    def add(self, predictions: Predictions, rows: np.ndarray) -> None:
        """Add predictions of known rows of the table."""
        pairs = Pairs(predictions, self.table, rows)
        for metric in self.metrics.values():
            metric.update(pairs)

    def outcomes(self) -> dict[str, Outcomes]:
        """Per-expression results of all processes, by metric."""
        return {spec: metric.outcomes() for spec, metric in self.metrics.items()}

    def compute(self) -> dict[str, float]:
        """Full name -> percent, over all processes."""
        return {
            f"{spec}/{name}": ratio.value
            for spec, outcomes in self.outcomes().items()
            for name, ratio in outcomes.ratios.items()
        }

    def report(self, bootstrap: int = 1000, seed: int = 0) -> ScoreReport:
        """Numbers with 95 % intervals from ``bootstrap`` resamples of the images (0: no intervals)."""
        images = self.table.column("image_id")
        outcomes = self.outcomes()
        scores: dict[str, Score] = {}
        for spec, result in outcomes.items():
            metric = self.metrics[spec]
            bounds = intervals(result.ratios, images[result.rows], bootstrap, seed) if bootstrap else {}
            frame = getattr(metric.rule, "frame", "image")
            for name, ratio in result.ratios.items():
                low, high = bounds.get(name, (math.nan, math.nan))
                score = Score(
                    task=metric.task,
                    variant=metric.variant or "default",
                    metric=name,
                    value=ratio.value,
                    low=low,
                    high=high,
                    n=int((ratio.den > 0).sum()),
                    resolution="original" if frame in ("image", "unit") else frame,
                )
                scores[score.name] = score
        default = [spec for spec in self.metrics if "/" not in spec]
        first = primary_metric(default) if default else next(iter(scores))
        return ScoreReport(
            dataset=str(self.table.info.get("dataset", "")),
            split=str(self.table.info.get("split", "")),
            data_hash=self.table.hash,
            expressions=len(self.table),
            images=len(np.unique(images)),
            scores=scores,
            outcomes=outcomes,
            primary=first,
        )


def default_tasks(table: AnnotationTable, predictions: Predictions) -> list[str]:
    """The tasks that both the annotations and the predictions allow: boxes, masks, points."""
    kind = table.info.get("task")
    generalised, boxes = kind == "grec", str(kind) if kind in ("grec", "phrase") else "rec"
    tasks = []
    if len(predictions.boxes):
        tasks.append(boxes)
    if predictions.has("point") or predictions.has("heatmap"):
        tasks.append("pointing")
    if table.has_masks and predictions.has("mask"):
        tasks.append("gres" if generalised else "res")
    return tasks or [boxes]


def evaluate_predictions(
    table: AnnotationTable,
    predictions: Predictions,
    tasks: Sequence[str] = (),
    variants: Sequence[str] = (),
    bootstrap: int = 1000,
    seed: int = 0,
) -> ScoreReport:
    """Score predictions of a whole split.

    Args:
        table: the annotations.
        predictions: of every expression, in any order.
        tasks: rec, res, grec, gres, pointing, phrase; none: :func:`default_tasks`.
        variants: further metrics, ``task/variant``.
        bootstrap: resamples for the intervals; 0: none.
        seed: of the bootstrap.

    Raises:
        UserError: if keys do not fit the table, or a metric cannot be computed on this data.
    """
    check(predictions, "predictions", "row")
    aligned = align(predictions, table)
    evaluator = Evaluator(table, [*(tasks or default_tasks(table, aligned)), *variants])
    for metric in evaluator.metrics.values():
        metric.sync_on_compute = False  # every process that gets here has all predictions
    for start in range(0, len(table), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(table)))
        evaluator.add(aligned.take(rows), rows)
    return evaluator.report(bootstrap, seed)


def trivial_predictions(table: AnnotationTable) -> Predictions:
    """The baseline that looks at nothing: a box of median size (relative to the image) in the image's centre.

    Where the table has masks, the box is the mask too; its centre is the point. Something is always found.
    """
    boxes = [row.boxes / [row.width, row.height, row.width, row.height] for row in table]
    flat = np.concatenate([*boxes, np.zeros((0, 4))])
    half = np.median(flat[:, 2:] - flat[:, :2], axis=0) / 2 if len(flat) else np.array([0.25, 0.25])
    with_masks = table.has_masks
    predictions = []
    shapes: dict[tuple[int, int], Prediction] = {}
    for width, height in zip(table.column("width"), table.column("height"), strict=True):
        if (width, height) not in shapes:
            size = np.array([width, height])
            box = np.concatenate([(0.5 - half) * size, (0.5 + half) * size])
            shapes[width, height] = Prediction(
                boxes=torch.tensor(box, dtype=torch.float32)[None],
                scores=torch.ones(1),
                mask=rectangle(box.tolist(), int(height), int(width)) if with_masks else None,
                point=(int(width) // 2, int(height) // 2),
            )
        predictions.append(shapes[width, height])
    return Predictions.from_list(table.column("key").tolist(), predictions)


def format_report(report: ScoreReport) -> str:
    """Markdown: a heading and a table of value, interval and count."""
    lines = [
        f"{report.dataset} {report.split}: {report.expressions} expressions, {report.images} images "
        f"(data {report.data_hash[:12]})",
        "",
        "| metric | % | 95 % interval | n |",
        "|---|---:|:---:|---:|",
    ]
    for name, score in report.scores.items():
        shown = f"**{name}**" if name == report.primary else name
        if score.resolution != "original":
            shown += f" ({score.resolution})"
        value = "not defined" if math.isnan(score.value) else f"{score.value:.2f}"
        interval = "" if math.isnan(score.low) else f"{score.low:.2f} to {score.high:.2f}"
        lines.append(f"| {shown} | {value} | {interval} | {score.n} |")
    return "\n".join(lines)


def benchmark(masks: int = 10_834, size: tuple[int, int] = (480, 640), seed: int = 0) -> dict[str, float]:
    """Time the scoring of a split like RefCOCO val: one box and one mask of ``size`` per expression.

    Returns:
        ``masks_per_s`` and ``boxes_per_s`` (scoring only), ``bootstrap_s`` (1000 resamples of all metrics),
        ``characters_per_mask`` (how complicated the masks are; a COCO mask has a few hundred).
    """
    table, predictions = _synthetic(masks, size, seed)
    rows = [np.arange(start, min(start + _CHUNK, masks)) for start in range(0, masks, _CHUNK)]
    seconds = {}
    for task in ("rec", "res"):
        evaluator = Evaluator(table, [task])
        start = time.perf_counter()
        for part in rows:
            evaluator.add(predictions.take(part), part)
        evaluator.compute()
        seconds[task] = time.perf_counter() - start
    start = time.perf_counter()
    for outcome in evaluator.outcomes().values():
        intervals(outcome.ratios, table.column("image_id"))
    characters = np.mean([len(mask["counts"]) for mask in predictions.masks()[:100] if mask])
    return {
        "masks_per_s": masks / seconds["res"],
        "boxes_per_s": masks / seconds["rec"],
        "bootstrap_s": time.perf_counter() - start,
        "characters_per_mask": float(characters),
    }


def _synthetic(n: int, size: tuple[int, int], seed: int) -> tuple[AnnotationTable, Predictions]:
    """Random blobs with ragged edges, ground truth and predictions, of 64 different shapes."""
    from vgbench.data.rle import encode

    random = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    shapes = []
    for _ in range(64):
        centre_x, centre_y = random.uniform(0.3, 0.7, 2) * [width, height]
        angle = np.arctan2(y - centre_y, x - centre_x)
        wave = 1 + sum(random.normal(0, 0.3 / k) * np.sin(k * angle + random.uniform(0, 6)) for k in range(2, 20))
        blob = np.hypot(x - centre_x, y - centre_y) < wave * random.uniform(0.15, 0.3) * height
        blob &= random.random(size) > 0.0005  # pinholes, as thresholded networks have them
        rows, columns = np.flatnonzero(blob.any(1)), np.flatnonzero(blob.any(0))
        box = [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]
        shapes.append((box, encode(blob)))
    chosen = random.integers(0, len(shapes), (n, 2))
    base = {"image": "", "width": width, "height": height, "expression": "", "polygons": [1], "ann_ids": []}
    base |= {"categories": [], "ref_id": None, "sent_id": None, "group": 0, "source": "synthetic", "split": "val"}
    table = AnnotationTable.from_rows(
        (
            {**base, "key": str(i), "image_id": i // 7, "boxes": [shapes[g][0]], "masks": [shapes[g][1]["counts"]]}
            for i, (g, _) in enumerate(chosen)
        ),
        {"dataset": "synthetic", "split": "val", "task": "rec"},
    )
    answers = [Prediction(torch.tensor([shapes[p][0]]), torch.ones(1), mask=shapes[p][1]) for _, p in chosen]
    return table, Predictions.from_list([str(i) for i in range(n)], answers)


def register(
    predictions: Mapping[str, Predictions],
    reports: Mapping[str, ScoreReport],
    config: Any,
    data: GroundingData,
    folder: Path,
    label: str,
    notes: Sequence[str] = (),
) -> Path:
    """Write a run folder for predictions that were made elsewhere: leaderboards show it with provenance "external".

    Args:
        predictions: by split.
        reports: by split.
        config: composed configuration; ``config.dataset`` goes into the record.
        data: the dataset.
        folder: run folder to make.
        label: what tables call the model.
        notes: how the predictions were read.

    Returns:
        The path of ``record.json``.
    """
    from omegaconf import OmegaConf

    from vgbench import record as records
    from vgbench.evaluation import Evaluation, split_results
    from vgbench.record import Record, config_hash, environment

    results = []
    for split, report in reports.items():
        table = data.load(split)
        source: Any = SimpleNamespace(prediction_sets=("main",))
        evaluation = Evaluation(source, data, split, table, folder / "predictions", ())
        with PredictionWriter(evaluation.file("main")) as writer:
            writer.write_table(predictions[split])
        results += split_results(evaluation, "main", report, {}, folder, leaked=None)
    node = {"dataset": OmegaConf.to_container(config.dataset, resolve=True), "label": label}
    entry = Record(
        method=label,
        label=label,
        config=node,
        config_hash=config_hash(node),
        environment=environment(),
        results=results,
        provenance="external",
        notes=list(notes),
    )
    return records.write(entry, folder)


def _may_register(folder: Path) -> None:
    """Refuse to write over a run that was made here; an external row may be registered again.

    Raises:
        UserError: if ``folder`` is a file, or holds the record of a run.
    """
    from vgbench import record as records
    from vgbench.record import FILE_NAME

    if folder.is_file():
        raise UserError(f"--register {folder}: a file; name a run folder to make")
    if (folder / FILE_NAME).is_file() and records.read(folder).provenance != "external":
        raise UserError(f"--register {folder}: holds the record of a run that was made here; name another folder")


def main(
    file: str,
    config: Any,
    split: str | None = None,
    variants: Sequence[str] = (),
    json_file: Path | None = None,
    reading: Mapping[str, str] | None = None,
    folder: Path | None = None,
    label: str | None = None,
) -> int:
    """``vgbench score FILE dataset=... split=...``: print the report; ``FILE`` may be "trivial".

    Args:
        file: predictions file, or "trivial" for :func:`trivial_predictions`.
        config: composed configuration; ``config.dataset`` is the dataset, ``config.task`` restricts the metrics.
        split: split of the dataset; "trivial" takes several ("val,testA"); None: every evaluation split.
        variants: ``task/variant``, beside the defaults.
        json_file: where to write the reports too.
        reading: options of :class:`vgbench.foreign.Reading`, if the file is in a foreign format.
        folder: run folder to write, which puts the result on leaderboards as "external".
        label: name of the model there; None: the file's name.

    Raises:
        UserError: if the file, the split or a variant is wrong, or ``folder`` holds a run that was made here.
    """
    from hydra.utils import instantiate

    from vgbench.core.files import write_atomically

    if label and not folder:
        raise UserError("--label names a row of the leaderboard: add --register DIR")
    if folder:
        _may_register(Path(folder))
    data = instantiate(config.dataset)
    trivial = file == "trivial"
    if not trivial and not Path(file).is_file():  # said before any dataset is read or generated
        raise UserError(f"{file}: no such file")
    default = [name for name in data.splits if name not in ("train", "pretrain")]
    splits = data.parse_splits(split or default)
    if not trivial and (split is None or len(splits) != 1):
        raise UserError(f"{file}: say which split was predicted: split=NAME (one of {', '.join(data.splits)})")
    predictions: dict[str, Predictions] = {}
    reports: dict[str, ScoreReport] = {}
    notes = [f"predictions: {'centre box of median size' if trivial else Path(file).name}"]
    for name in splits:
        table = data.load(name)
        if trivial:
            predictions[name] = trivial_predictions(table)
        elif reading:
            predictions[name], how = read_foreign(file, table, Reading.from_options(reading))
            notes += how
        else:
            predictions[name] = read_predictions(file, table)
        tasks = [config.task] if config.task else []
        wanted = [*variants, *config.eval.variants]
        reports[name] = evaluate_predictions(table, predictions[name], tasks, wanted, config.eval.bootstrap)
        print(format_report(reports[name]), end="\n\n")
    for note in notes[1:]:
        print(f"note: {note}")
    if json_file:
        content = [report.as_dict() for report in reports.values()]
        write_atomically(Path(json_file), json.dumps(content, indent=2).encode())
    if folder:
        written = register(predictions, reports, config, data, Path(folder), label or Path(file).stem, notes)
        print(f"record: {written} (vgbench compare shows it)")
    return 0
