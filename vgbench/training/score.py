"""A trained model on every split: predictions, numbers, pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig

from vgbench.batches.samples import GroundingDataset, shuffled
from vgbench.data.dataset import GroundingData
from vgbench.data.table import AnnotationTable
from vgbench.metrics.evaluator import ScoreReport, format_report, report_grid
from vgbench.predictions.reader import read_predictions
from vgbench.predictions.rereading import reading_notes
from vgbench.predictions.styles import style
from vgbench.records.record import Result
from vgbench.records.results import ScoredOutput, results_of
from vgbench.training.checks import as_list
from vgbench.training.data import evaluation_loader, evaluation_samples, scored_splits
from vgbench.training.evaluation import Evaluation, metrics_by_output
from vgbench.training.guards import StopAtStep
from vgbench.training.logs import say, say_table
from vgbench.training.model import TrainedModel
from vgbench.training.module import GroundingModule, Stopwatch
from vgbench.training.progress import progress
from vgbench.training.stress import StressScores, StressTest
from vgbench.training.trainer import build_trainer, quiet

SHUFFLED = "shuffled text"  # the control: every expression dealt to another row


@dataclass(frozen=True)
class SplitScores:
    """What a model scored on one split.

    Attributes:
        results: for the record; empty on every process but the first, as are the notes on images seen in training.
        primary: the number to look at first, in percent.
        notes: for a reader of the record.
        stopwatch: how long the predictions took.
    """

    results: tuple[Result, ...]
    primary: float
    notes: tuple[str, ...]
    stopwatch: Stopwatch


@dataclass(frozen=True)
class Scores:
    """What a model scored, split by split. ``whole``: this process is the one that has all results."""

    splits: tuple[SplitScores, ...]
    whole: bool


@quiet()
def score_splits(
    config: DictConfig,
    model: TrainedModel,
    dataset: GroundingData,
    metrics: Sequence[str],
    folder: Path,
    *,
    stress_only: bool = False,
) -> Scores:
    """Score a model on every split of ``eval.splits``; predictions and pictures go into the run folder.

    Args:
        metrics: ``task`` or ``task/variant`` each.
        stress_only: the plain questions are answered, but only what probes make of the answers becomes a result.
    """
    model.method.prepare(folder, {metric.partition("/")[0] for metric in metrics})
    scorer = Scorer(config, model, dataset, metrics, folder, stress_only=stress_only)
    splits = tuple(scorer.score(split) for split in scored_splits(config, dataset))
    return Scores(splits, whole=scorer.trainer.is_global_zero)


class Scorer:
    """One model on the splits of one dataset."""

    def __init__(
        self,
        config: DictConfig,
        model: TrainedModel,
        dataset: GroundingData,
        metrics: Sequence[str],
        folder: Path,
        *,
        stress_only: bool = False,
    ) -> None:
        self.stress_only = stress_only
        self.config, self.model, self.dataset, self.folder = config, model, dataset, folder
        self.outputs = metrics_by_output(model.method, metrics)
        self.trainer = build_trainer(
            config, folder, [StopAtStep(folder), progress()], inference_mode=not model.method.requires_grad_at_inference
        )

    def score(self, split: str) -> SplitScores:
        """Predict and score a split, after its control if there is one."""
        dataset, options = self.dataset, self.config.eval
        table = dataset.load(split)
        notes = []
        limit = options.limit or (options.stress_limit if self.stress_only else None)
        if limit:
            table = table.take(range(min(limit, len(table))))
            key = "limit" if options.limit else "stress_limit"
            notes.append(f"{split}: only the first {len(table)} expressions (eval.{key})")
        auxiliary = self.model.method.auxiliary_inputs(table)
        samples = evaluation_samples(self.model.method, dataset, table, auxiliary)
        others = shuffled(table, self.config.seed).tolist()
        dealt = evaluation_samples(self.model.method, dataset, table, auxiliary, expression_rows=others)
        controls = {}
        if split in as_list(options.control):
            place = self.folder / "predictions" / SHUFFLED.replace(" ", "-")
            controls[SHUFFLED], _ = self._predict(self._evaluation(split, table, place), dealt)
        evaluation = self._evaluation(split, table, self.folder / "predictions")
        reports, stopwatch = self._predict(evaluation, dealt if options.shuffle_text else samples)
        if evaluation.skipped:
            notes.append(f"{split}: {evaluation.skipped} images could not be read; their expressions count as wrong")
        if options.shuffle_text:
            notes.append(f"{split}: scored on shuffled expressions (eval.shuffle_text=true)")
        whole = self.trainer.is_global_zero
        leaked = self._leaked_images(table) if whole else None
        stress = StressTest(self.config, self.model.method, dataset, self.folder, self._predict)
        stressed = stress.score(evaluation, whole, leaked) if options.stress else StressScores((), ())
        notes += stressed.notes
        if not whole:
            return SplitScores((), math.nan, tuple(notes), stopwatch)
        notes += self._reading_notes(evaluation)
        if leaked:
            notes.append(f"{split}: {leaked} of its images are training images")
            say(f"WARNING {dataset.name} {split}: {leaked} of its images are in the training data of this model")
        results = [] if self.stress_only else self._results(evaluation, reports, controls, leaked)
        results += stressed.results
        self._draw(evaluation)
        return SplitScores(tuple(results), evaluation.flat(reports)[evaluation.primary], tuple(notes), stopwatch)

    def _leaked_images(self, table: AnnotationTable) -> int | None:
        """How many of its images the model was trained on; None: not known."""
        seen = self.model.seen
        return seen.among(table, self.dataset.image_aliases()) if seen else None

    def _reading_notes(self, evaluation: Evaluation) -> list[str]:
        """How the words of a language model were read."""
        if not self.model.method.answer_style:
            return []
        file = evaluation.file(self.model.method.outputs[0])
        predictions = read_predictions(file, evaluation.table, missing="empty")
        notes = reading_notes(predictions, evaluation.table, style(self.model.method.answer_style))
        return [f"{evaluation.split}: {note}" for note in notes]

    def _evaluation(self, split: str, table: AnnotationTable, folder: Path) -> Evaluation:
        return Evaluation(table, split, folder, self.outputs)

    def _predict(self, evaluation: Evaluation, samples: GroundingDataset) -> tuple[dict[str, ScoreReport], Stopwatch]:
        """Predict all samples and score them; the reports by output."""
        method = self.model.method
        module = GroundingModule(method, self.config, evaluation)
        self.trainer.test(module, evaluation_loader(self.config, self.trainer, method, samples), verbose=False)
        return evaluation.finish(self.trainer, self.config.eval.bootstrap), module.stopwatch

    def _results(
        self,
        evaluation: Evaluation,
        reports: dict[str, ScoreReport],
        controls: dict[str, dict[str, ScoreReport]],
        leaked: int | None,
    ) -> list[Result]:
        """Print every report, and make results of it."""
        method = self.model.method
        results: list[Result] = []
        for output, report in reports.items():
            scored = ScoredOutput(
                self.dataset,
                evaluation.split,
                evaluation.table,
                report,
                {control: by_output[output] for control, by_output in controls.items()},
                output=output,
                predictions=evaluation.file(output).relative_to(self.folder),
                leaked_images=leaked,
            )
            results += results_of(scored)
            title = method.output_labels.get(output) or (
                method.name if output == "main" else f"{method.name} / {output}"
            )
            grid = report_grid(report)
            say_table(replace(grid, title=f"{title} on {grid.title}"), f"\n{title} on {format_report(report)}\n")
            for control, control_report in scored.controls.items():
                value = control_report.values[control_report.primary]
                say(f"control, {control}: {control_report.primary} {value:.2f} %")
        return results

    def _draw(self, evaluation: Evaluation) -> None:
        if not self.config.eval.examples:
            return
        from vgbench.pictures import examples

        examples.examples(
            self.folder / "examples" / evaluation.split,
            evaluation.table,
            self.dataset.image_path,
            evaluation.file,
            self.model.method,
            self.config.eval.examples,
        )
