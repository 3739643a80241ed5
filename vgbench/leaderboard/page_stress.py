"""The page's stress tests: bars by probe, curves, and paired tests between runs, as plain JSON values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from vgbench.core.grid import Grid
from vgbench.leaderboard.stress import StressSplit, judged, probe_order
from vgbench.metrics.tasks import STRESS
from vgbench.probes.names import split_and_probe
from vgbench.records.record import Metric, Record, Result

MOST_RUNS = 6  # of more, not every pair is tested
Numbered = list[tuple[int, Result]]  # row of the page, result


def collect_stress(records: Sequence[Record], row_of: Mapping[Any, int], labels: Sequence[str]) -> list[dict[str, Any]]:
    """What the page shows of each split that probes asked about.

    Args:
        row_of: row of the page, by (number of the record, prediction set).
        labels: of the rows.
    """
    splits: dict[StressSplit, dict[str, Numbered]] = {}
    for run, record in enumerate(records):
        for result in record.results:
            split, spec = split_and_probe(result.split)
            where = StressSplit(result.embedded, result.dataset, result.split_by, split)
            if result.task == STRESS:
                splits.setdefault(where, {}).setdefault(spec, []).append((row_of[run, result.prediction_set], result))
    return [
        {
            "where": where.where,
            "embedded": where.embedded,
            "probes": [
                _probe(spec, results) for spec, results in sorted(probes.items(), key=lambda p: probe_order(p[0]))
            ],
            "curves": [
                *_severities(probes, labels),
                *_false_answers(probes, labels),
                *_distractors(probes, labels),
                *_of_scores(records, where, row_of, labels),
            ],
            "tests": [_test(grid) for grid in _grids(records, where)],
        }
        for where, probes in sorted(splits.items(), key=str)
    ]


def _grids(records: Sequence[Record], where: StressSplit) -> list[Grid]:
    """Paired tests of the runs of a split."""
    here = [
        record
        for record in records
        if any(result.task == STRESS and result.dataset == where.dataset for result in record.results)
    ]
    if len(here) > MOST_RUNS:
        return []
    if not here:
        return []
    from vgbench.leaderboard.stress_versus import versus_grids  # brings numpy along

    return [grid for first, second in combinations(here, 2) for grid in versus_grids(first, second)]


def _test(grid: Grid) -> dict[str, Any]:
    heads = [heading.text for heading in grid.headings]
    return {"title": grid.title, "heads": heads, "rows": [[cell.text for cell in row] for row in grid.rows]}


def _probe(spec: str, results: Numbered) -> dict[str, Any]:
    """The bars of a probe; questions that are not the same as the first row's are marked."""
    data = results[0][1].data_hash
    return {
        "spec": spec,
        "judged": judged(spec),
        "bars": [
            {
                "row": row,
                "right": _point(result.metrics["right"]),
                "plain": result.metrics["plain"].value if "plain" in result.metrics else None,
                "n": result.metrics["right"].n,
                "same": result.data_hash == data,
                "more": {
                    name: metric.value for name, metric in result.metrics.items() if name not in ("right", "plain")
                },
            }
            for row, result in results
        ],
    }


def _point(metric: Metric) -> list[float | None]:
    return [metric.value, metric.low, metric.high]


def _series(points: Mapping[int, list[list[Any]]], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Curves of several rows; those of one point only are none."""
    return [
        {"row": row, "label": labels[row], "points": sorted(one, key=lambda point: point[0])}
        for row, one in points.items()
        if len(one) > 1
    ]


def _curve(
    title: str, x: str, y: str, points: Mapping[int, list[list[Any]]], labels: Sequence[str]
) -> list[dict[str, Any]]:
    series = _series(points, labels)
    return [{"title": title, "x": x, "y": y, "series": series}] if series else []


def _severities(probes: Mapping[str, Numbered], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Accuracy by severity; severity 0 is the unchanged image."""
    kinds: dict[str, dict[int, list[list[Any]]]] = {}
    for spec, results in probes.items():
        kind, at, level = spec.partition("@")
        for row, result in results if at else []:
            points = kinds.setdefault(kind, {}).setdefault(row, [])
            if not points and "plain" in result.metrics:
                points.append([0, *_point(result.metrics["plain"])])
            points.append([int(level), *_point(result.metrics["right"])])
    return [curve for kind, points in kinds.items() for curve in _curve(kind, "severity", "right, %", points, labels)]


def _false_answers(probes: Mapping[str, Numbered], labels: Sequence[str]) -> list[dict[str, Any]]:
    """False answers by the score that an answer needs."""
    curves = []
    for spec, results in probes.items():
        points: dict[int, list[list[Any]]] = {}
        for row, result in results:
            for name, metric in result.metrics.items():
                if match := re.fullmatch(r"false@(\d+)", name):
                    points.setdefault(row, []).append([int(match[1]) / 100, *_point(metric)])
        curves += _curve(f"{spec}: false answers", "least score", "answered, %", points, labels)
    return curves


def _distractors(probes: Mapping[str, Numbered], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Accuracy by the number of other objects of the category."""
    curves = []
    for spec, results in probes.items():
        points: dict[int, list[list[Any]]] = {}
        for row, result in results:
            for buckets in result.slices.get("right", {}).values():
                points[row] = [[int(name.rstrip("+")), *_point(metric)] for name, metric in buckets.items()]
        curves += _curve(f"{spec}: accuracy", "other objects of the category", "right, %", points, labels)
    return curves


def _of_scores(
    records: Sequence[Record], where: StressSplit, row_of: Mapping[Any, int], labels: Sequence[str]
) -> list[dict[str, Any]]:
    """Reliability diagram and risk-coverage curve of the plain answers."""
    reliability: dict[int, list[list[Any]]] = {}
    risk: dict[int, list[list[Any]]] = {}
    for run, record in enumerate(records):
        for result in record.results:
            if StressSplit(result.embedded, result.dataset, result.split_by, result.split) != where:
                continue
            row = row_of[run, result.prediction_set]
            accuracy = result.slices.get("accuracy", {}).get("score", {})
            confidence = result.slices.get("confidence", {}).get("score", {})
            if accuracy.keys() == confidence.keys() and accuracy:
                reliability[row] = [[confidence[name].value, *_point(metric)] for name, metric in accuracy.items()]
            points = [
                [int(name.partition("@")[2]), *_point(metric)]
                for name, metric in result.metrics.items()
                if name.startswith("risk@")
            ]
            if points:
                risk[row] = points
    return [
        *_curve("reliability", "score, %", "right, %", reliability, labels),
        *_curve("risk and coverage", "answered, %", "wrong of them, %", risk, labels),
    ]
