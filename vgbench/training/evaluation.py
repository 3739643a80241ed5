"""Predictions of one split on their way to disk and to the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import lightning as L

from vgbench.data.dataset import GroundingData
from vgbench.data.table import AnnotationTable
from vgbench.method import GroundingMethod
from vgbench.metrics import primary_metric
from vgbench.metrics.evaluator import ScoreReport, evaluate_predictions
from vgbench.predictions.reader import read_predictions
from vgbench.predictions.writer import PredictionWriter, merge_parts
from vgbench.types import Batch, Prediction


class Evaluation:
    """Predictions of one split on their way to disk and to the metrics.

    Args:
        method: gives the names of the prediction sets.
        data: the dataset.
        split: its split.
        table: the expressions to score.
        folder: where prediction files go; every process writes its own part, process 0 joins them.
        tasks: metrics to compute.
    """

    def __init__(
        self,
        method: GroundingMethod,
        data: GroundingData,
        split: str,
        table: AnnotationTable,
        folder: Path,
        tasks: Sequence[str],
        variants: Sequence[str] = (),
        monitor: str | None = None,
    ) -> None:
        self.method, self.data, self.split, self.table = method, data, split, table
        self.folder, self.tasks, self.variants = folder, tuple(tasks), tuple(variants)
        self.sets = method.outputs
        self.monitor = monitor
        self.seconds, self.timed, self.skipped = 0.0, 0, 0
        self.output_rates: dict[str, list[float]] = {}  # samples/s of a set alone, batch by batch
        self._writers: dict[str, PredictionWriter] = {}

    @property
    def primary(self) -> str:
        """Name of the metric that selects checkpoints."""
        return self.monitor or primary_metric(self.tasks)

    def file(self, name: str) -> Path:
        """The joined predictions file of a prediction set."""
        return self.folder / (f"{self.split}.parquet" if name == "main" else f"{self.split}-{name}.parquet")

    def _part(self, name: str, rank: int) -> Path:
        return self.folder / f".{self.file(name).stem}.part{rank}.parquet"

    def start(self, rank: int = 0) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rank = rank
        self._writers = {name: PredictionWriter(self._part(name, rank)) for name in self.sets}

    def add(self, batch: Batch, sets: Mapping[str, list[Prediction]]) -> None:
        self.skipped += len(batch.skipped)
        for name, writer in self._writers.items():
            writer.write(batch.keys, sets[name])

    def finish(self, trainer: L.Trainer, bootstrap: int) -> dict[str, ScoreReport]:
        """Join the parts, score them; one report per prediction set that is scored, the same on every process."""
        for writer in self._writers.values():
            writer.close()
        trainer.strategy.barrier("predictions written")
        if trainer.is_global_zero:
            for name in self.sets:
                merge_parts([self._part(name, rank) for rank in range(trainer.world_size)], self.file(name))
        trainer.strategy.barrier("predictions joined")
        return self.score(bootstrap)

    def score(self, bootstrap: int) -> dict[str, ScoreReport]:
        reports = {}
        for name in self.sets:
            tasks = [task for task in self.tasks if task in self.method.output_tasks.get(name, self.tasks)]
            if not tasks:
                continue
            reports[name] = evaluate_predictions(
                self.table,
                read_predictions(self.file(name), self.table, missing="empty" if self.skipped else "error"),
                tasks=tasks,
                variants=[variant for variant in self.variants if variant.partition("/")[0] in tasks],
                bootstrap=bootstrap,
            )
        return reports
