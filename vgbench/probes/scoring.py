"""Answers to a probe's questions -> numbers with intervals, and the per-expression outcomes that tests are made
with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vgbench.core.errors import UserError
from vgbench.core.files import atomic, ordinary_file
from vgbench.data.table import AnnotationTable
from vgbench.metrics.base import Outcomes, Ratio
from vgbench.metrics.bootstrap import intervals
from vgbench.metrics.errors import error_kinds
from vgbench.metrics.evaluator import Evaluator, ScoreReport
from vgbench.metrics.pairs import Pairs
from vgbench.metrics.slices import SliceScore
from vgbench.metrics.stress import AnswerPairs
from vgbench.metrics.verdict import first_boxes
from vgbench.predictions.table import Predictions
from vgbench.probes.base import Expectation
from vgbench.probes.questions import Questions

SPEC = "stress"
MOST_PEERS = 5  # other objects of the category that are told apart


@dataclass(frozen=True)
class StressScore:
    """What a model scores on the questions of a probe.

    Attributes:
        report: the numbers.
        slices: by metric, rule and bucket.
        columns: per question, what was measured (:meth:`~vgbench.metrics.stress.Stress.measure`).
    """

    report: ScoreReport
    slices: Mapping[str, Mapping[str, Mapping[str, SliceScore]]]
    columns: Mapping[str, np.ndarray]


def score(questions: Questions, changed: Predictions | None, plain: Predictions, bootstrap: int = 1000) -> StressScore:
    """Score the answers to the questions of a probe.

    Args:
        changed: answers to the questions, in their order; None for a probe that changes nothing.
        plain: answers to the plain expressions of the split, in the order of its table.
        bootstrap: resamples for the intervals; 0: none.
    """
    plain_pairs = Pairs(plain.take(questions.rows), questions.plain, np.arange(len(questions.rows)))
    answers = plain_pairs.predictions if changed is None else changed
    pairs = Pairs(answers, questions.table, np.arange(len(questions.rows)))
    expectation = questions.probe.expectation
    errors = error_kinds(pairs, questions.annotations.scenes) if expectation is Expectation.SAME else None
    carried = questions.carried(*first_boxes(plain_pairs.predictions))
    evaluator = Evaluator(questions.table, [SPEC])
    metric = evaluator.metrics[SPEC]
    both = AnswerPairs(pairs, plain_pairs, carried, expectation.value, errors)
    columns = metric.measure(both)
    metric.update(both)
    report = replace(evaluator.report(bootstrap), data_hash=questions.hash)
    outcomes = report.outcomes[SPEC]
    slices = {} if errors is None else _by_peers(outcomes, errors.peers, questions.table, bootstrap)
    return StressScore(report, slices, columns)


def _by_peers(
    outcomes: Outcomes, peers: np.ndarray, table: AnnotationTable, bootstrap: int
) -> dict[str, dict[str, dict[str, SliceScore]]]:
    """Accuracy, chance and wrong instances by the number of other objects of the category."""
    images = table.column("image_id")
    slices: dict[str, dict[str, dict[str, SliceScore]]] = {}
    for name in ("right", "chance", "wrong_instance"):
        buckets = slices.setdefault(name, {}).setdefault("other objects of the category", {})
        for count in range(MOST_PEERS + 1):
            members = peers == count if count < MOST_PEERS else peers >= count
            if members.any():
                ratio = outcomes.take(members).ratios[name]
                bounds = (
                    intervals({name: ratio}, images[members], bootstrap)[name] if bootstrap else (math.nan, math.nan)
                )
                buckets[str(count) if count < MOST_PEERS else f"{count}+"] = SliceScore(
                    ratio.value, int(members.sum()), *bounds
                )
    return slices


def write_outcomes(path: Path, report: ScoreReport, table: AnnotationTable) -> None:
    """What each question adds to each number: what paired tests between runs are made of, without data or model."""
    outcomes = report.outcomes[SPEC]
    columns: dict[str, pa.Array | np.ndarray] = {
        "key": pa.array(table.column("key")[outcomes.rows].tolist(), pa.string()),
        "image_id": table.column("image_id")[outcomes.rows],
    }
    for name, ratio in outcomes.ratios.items():
        columns |= {f"{name}/num": ratio.num.astype(np.float64), f"{name}/den": ratio.den.astype(np.float64)}
    about = json.dumps({"split": report.split, "dataset": report.dataset, "data_hash": report.data_hash})
    with atomic(path) as temporary:
        pq.write_table(pa.table(columns).replace_schema_metadata({"vgbench": about}), temporary, compression="zstd")


@dataclass(frozen=True)
class StoredOutcomes:
    """Outcomes as :func:`write_outcomes` stores them; ``images``: of each question, int64 [n]."""

    outcomes: Outcomes
    images: np.ndarray
    data_hash: str


def read_outcomes(path: Path) -> StoredOutcomes:
    """Read what :func:`write_outcomes` wrote.

    Raises:
        UserError: if the file is damaged.
    """
    try:
        table = pq.read_table(ordinary_file(path))
        about = json.loads(table.schema.metadata[b"vgbench"])
        names = [name.removesuffix("/num") for name in table.column_names if name.endswith("/num")]
        ratios = {
            name: Ratio(table.column(f"{name}/num").to_numpy(), table.column(f"{name}/den").to_numpy())
            for name in names
        }
        rows = np.arange(len(table))
        return StoredOutcomes(Outcomes(rows, ratios), table.column("image_id").to_numpy(), str(about["data_hash"]))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: no outcomes of a stress test ({error}); run vgbench stress again") from None
