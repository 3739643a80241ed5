"""Predictions of one split on their way to disk and to the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import lightning as L

from vgbench.batches.samplers import share
from vgbench.data.table import AnnotationTable
from vgbench.method import GroundingMethod
from vgbench.metrics.catalog import primary_metric
from vgbench.metrics.evaluator import ScoreReport, evaluate_predictions, flat_metrics
from vgbench.metrics.tasks import task_of
from vgbench.predictions.reader import read_predictions
from vgbench.predictions.writer import PredictionWriter, merge_parts
from vgbench.types import Prediction


def metrics_by_output(method: GroundingMethod, metrics: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Every output of a method -> those of ``metrics`` (``task`` or ``task/variant``) that are scored of it."""

    def predicts(output: str, metric: str) -> bool:
        task = task_of(metric.partition("/")[0])
        return output not in method.output_tasks or task.is_predicted(method.output_tasks[output])

    return {name: tuple(metric for metric in metrics if predicts(name, metric)) for name in method.outputs}


class Evaluation:
    """Predictions of one split on their way to disk and to the metrics.

    Args:
        table: the expressions to score.
        split: its name.
        folder: where prediction files go; every process writes its own part, process 0 joins them.
        outputs: the outputs that are written -> the metrics (``task`` or ``task/variant``) that are scored of each.
        primary: full name of the metric that selects checkpoints; None: the primary metric of the tasks.

    Attributes:
        skipped: images that this process could not read.
    """

    def __init__(
        self,
        table: AnnotationTable,
        split: str,
        folder: Path,
        outputs: Mapping[str, Sequence[str]],
        primary: str | None = None,
    ) -> None:
        self.table, self.split, self.folder = table, split, folder
        self.outputs = dict(outputs)
        self.primary = primary or primary_metric([name for metrics in outputs.values() for name in metrics])
        self.skipped = 0
        self._writers: dict[str, PredictionWriter] = {}
        self._counts = True

    def file(self, output: str) -> Path:
        """The joined predictions file of an output."""
        return self.folder / (f"{self.split}.parquet" if output == "main" else f"{self.split}-{output}.parquet")

    def _part(self, output: str, rank: int) -> Path:
        return self.folder / f".{self.file(output).stem}.part{rank}.parquet"

    def start(self, rank: int = 0, world_size: int = 1) -> None:
        """Begin to write the part of process ``rank``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._counts = len(share(self.table.column("image_id"), rank, world_size)) > 0
        self._writers = {name: PredictionWriter(self._part(name, rank)) for name in self.outputs}

    def add(self, keys: Sequence[str], skipped: int, predictions: Mapping[str, list[Prediction]]) -> None:
        """Write what was predicted for a batch, by output; of a process with a share of the expressions."""
        if not self._counts:
            return
        self.skipped += skipped
        for name, writer in self._writers.items():
            writer.write(keys, predictions[name])

    def finish(self, trainer: L.Trainer, bootstrap: int) -> dict[str, ScoreReport]:
        """Join the parts, score them; one report per output that is scored, the same on every process."""
        for writer in self._writers.values():
            writer.close()
        trainer.strategy.barrier("predictions written")
        if trainer.is_global_zero:
            for name in self.outputs:
                merge_parts([self._part(name, rank) for rank in range(trainer.world_size)], self.file(name))
        trainer.strategy.barrier("predictions joined")
        return self.score(bootstrap)

    def score(self, bootstrap: int) -> dict[str, ScoreReport]:
        """Score the joined files, by output."""
        missing: Literal["empty", "error"] = "empty" if self.skipped else "error"
        return {
            name: evaluate_predictions(
                self.table,
                read_predictions(self.file(name), self.table, missing=missing),
                metrics,
                bootstrap=bootstrap,
            )
            for name, metrics in self.outputs.items()
            if metrics
        }

    def flat(self, reports: Mapping[str, ScoreReport]) -> dict[str, float]:
        """The numbers of all outputs under one name each."""
        return flat_metrics(reports, tuple(self.outputs))
