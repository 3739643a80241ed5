"""A trained model under probes: predictions of changed questions, numbers beside those of the plain ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from vgbench.batches.samples import GroundingDataset
from vgbench.core.errors import UserError
from vgbench.data.dataset import GroundingData
from vgbench.data.table import AnnotationTable
from vgbench.method import GroundingMethod
from vgbench.metrics.calibration import reliability
from vgbench.metrics.evaluator import ScoreReport, evaluate_predictions
from vgbench.metrics.verdict import top_scores
from vgbench.predictions.reader import read_predictions
from vgbench.predictions.table import Predictions
from vgbench.probes.annotations import Annotations
from vgbench.probes.base import Expectation, Probe
from vgbench.probes.catalog import parse_all
from vgbench.probes.files import file_stem, outcomes_file
from vgbench.probes.questions import Questions, ask
from vgbench.probes.scoring import score, write_outcomes
from vgbench.records.record import Result
from vgbench.records.results import ScoredOutput, results_of
from vgbench.training.checks import as_list
from vgbench.training.evaluation import Evaluation
from vgbench.training.logs import say
from vgbench.training.stress_pictures import draw_worst

Predict = Callable[[Evaluation, GroundingDataset], Any]


@dataclass(frozen=True)
class StressScores:
    """Results and notes of the probes of one split; no results on every process but the first."""

    results: tuple[Result, ...]
    notes: tuple[str, ...]


class StressTest:
    """The probes of ``eval.stress`` on one split of one model.

    Args:
        config: of the run.
        method: the model.
        dataset: what it is asked about.
        folder: the run folder.
        predict: has a trainer predict all samples into an evaluation's files.
    """

    def __init__(
        self, config: DictConfig, method: GroundingMethod, dataset: GroundingData, folder: Path, predict: Predict
    ) -> None:
        self.config, self.method, self.dataset, self.folder, self.predict = config, method, dataset, folder, predict

    @property
    def probes(self) -> list[Probe]:
        """What is asked; raises UserError for a probe that there is not."""
        return parse_all(as_list(self.config.eval.stress))

    def score(self, evaluation: Evaluation, whole: bool, leaked: int | None) -> StressScores:
        """Ask all probes about a split whose plain questions are answered.

        Args:
            evaluation: of the plain split, joined.
            whole: this process scores.
            leaked: images of the split that the model was trained on.
        """
        options = self.config.eval
        table = evaluation.table
        part = table.take(range(min(options.stress_limit, len(table)))) if options.stress_limit else table
        annotations = Annotations.of(self.dataset, evaluation.split, part, options.stress_objects)
        results: list[Result] = []
        notes: list[str] = []
        for probe in self.probes:
            questions = ask(probe, annotations, evaluation.split, options.stress_seed)
            notes.append(questions.note)
            files = self._answer(questions, notes) if len(questions.rows) else None
            if files is not None and whole:
                results += self._results(questions, evaluation, files, leaked)
        if whole:
            results += self._of_scores(evaluation, leaked)
        return StressScores(tuple(results), tuple(notes))

    def _answer(self, questions: Questions, notes: list[str]) -> Mapping[str, Path] | None:
        """The predictions files of a probe's questions, by output; none for one that changes nothing."""
        if questions.probe.expectation is Expectation.SAME:
            return {}
        try:
            auxiliary = self.method.auxiliary_inputs(questions.table)
        except UserError as error:
            notes.append(f"{questions.split}: not asked, the method lacks its auxiliary inputs: {error}")
            return None
        samples = GroundingDataset(
            questions.table,
            self.dataset.image_path,
            self.method.eval_transform(),
            masks=False,
            auxiliary=auxiliary,
            on_bad_sample=self.dataset.on_bad_sample,
            picture=questions.picture if questions.probe.changes_images else None,
        )
        outputs: dict[str, Sequence[str]] = dict.fromkeys(self.method.outputs, ())
        place = self.folder / "predictions" / "stress"
        evaluation = Evaluation(questions.table, file_stem(questions.split), place, outputs, primary="stress/right")
        self.predict(evaluation, samples)
        return {name: evaluation.file(name) for name in outputs}

    def _results(
        self, questions: Questions, evaluation: Evaluation, files: Mapping[str, Path], leaked: int | None
    ) -> list[Result]:
        """Results of every output; outcomes for paired tests go into the run folder."""
        results = []
        answers: dict[str, Predictions] = {}
        columns: Mapping[str, np.ndarray] = {}
        for output in self.method.outputs:
            plain = read_predictions(evaluation.file(output), evaluation.table, missing="empty")
            file = files.get(output)
            changed = None if file is None else read_predictions(file, questions.table, missing="empty")
            scored = score(questions, changed, plain, self.config.eval.bootstrap)
            answers[output] = plain.take(questions.rows) if changed is None else changed
            columns = columns or scored.columns
            write_outcomes(outcomes_file(self.folder, questions.split, output), scored.report, questions.table)
            value = scored.report.scores["stress/right"]
            say(f"{self.dataset.name} {questions.split}, {output}: right {value.value:.2f} % of {value.n}")
            results += results_of(
                ScoredOutput(
                    self.dataset,
                    questions.split,
                    questions.table,
                    scored.report,
                    {},
                    output=output,
                    predictions=None if file is None else file.relative_to(self.folder),
                    leaked_images=leaked,
                    slices=scored.slices,
                )
            )
        if self.config.eval.examples:
            folder = self.folder / "examples" / file_stem(questions.split)
            draw_worst(folder, questions, columns, answers, self.method, self.dataset.image_path)
        return results

    def _of_scores(self, evaluation: Evaluation, leaked: int | None) -> list[Result]:
        """Calibration or rejection of the plain answers, where they have boxes with scores."""
        results = []
        for output in self.method.outputs:
            predictions = read_predictions(evaluation.file(output), evaluation.table, missing="empty")
            report = score_report(evaluation.table, predictions, self.config.eval.bootstrap)
            if report is not None:
                images = evaluation.table.column("image_id")
                outcomes = report.outcomes.get("calibration")
                scored = ScoredOutput(
                    self.dataset,
                    evaluation.split,
                    evaluation.table,
                    report,
                    {},
                    output=output,
                    predictions=evaluation.file(output).relative_to(self.folder),
                    leaked_images=leaked,
                    slices=reliability(outcomes, images, self.config.eval.bootstrap) if outcomes else {},
                )
                results += results_of(scored)
        return results


def score_report(table: AnnotationTable, predictions: Predictions, bootstrap: int) -> ScoreReport | None:
    """What the scores of plain answers are worth: calibration, or on data of any number of targets rejection; None for
    answers without boxes, or with one and the same score."""
    scores = top_scores(predictions)
    if not predictions.box_counts.any() or len(np.unique(scores[predictions.box_counts > 0])) < 2:
        return None
    task = "rejection" if table.info.get("task") == "grec" else "calibration"
    return evaluate_predictions(table, predictions, [task], bootstrap=bootstrap)
