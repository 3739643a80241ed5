"""The score threshold of a model, chosen on one split."""

from __future__ import annotations

from vgbench.data.table import AnnotationTable
from vgbench.metrics.evaluator import evaluate_predictions
from vgbench.predictions.table import GREC_SCORE_THRESHOLD, Predictions

USUAL = round(100 * GREC_SCORE_THRESHOLD)


def best_threshold(table: AnnotationTable, predictions: Predictions) -> int:
    """The threshold in percent, from 1 to 99, with the most expressions whose boxes are all right (Pr@F1); of equally
    good ones that next to gRefCOCO's 70.

    Raises:
        UserError: if the predictions do not fit the table.
    """
    variants = [f"grec/score@{percent}" for percent in range(1, 100)]
    report = evaluate_predictions(table, predictions, variants, bootstrap=0)
    rates = {percent: report.values[f"grec/score@{percent}/pr@f1"] for percent in range(1, 100)}
    return max(rates, key=lambda percent: (rates[percent], -abs(percent - USUAL)))
