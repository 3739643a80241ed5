"""What a task is: its name, titles, headline and place, and what its metrics are computed from.

Nothing numeric is imported here, so that tables of records can be printed without torch. A metric class says which task
it measures (:attr:`GroundingMetric.task`); a plug-in brings its :class:`Task` with its metric.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from vgbench.core.registry import metrics

# How the field writes metrics that several tasks have.
_SPELLINGS = {
    "miou": "mIoU",
    "oiou": "oIoU",
    "giou": "gIoU",
    "ciou": "cIoU",
    "pr@f1": "Pr@F1",
    "n_acc": "N-acc",
    "t_acc": "T-acc",
    "macc": "mAcc",
    "n3r": "N3R",
    "auroc": "AUROC",
}


@dataclass(frozen=True)
class Task:
    """A task, as its metric declares it.

    Attributes:
        name: what is typed and stored, e.g. "rec"; lower case.
        primary: the metric that selects checkpoints and is looked at first.
        title: how tables call the task; empty: its name.
        headline: metrics that a leaderboard shows unless all are asked for; empty: the primary one.
        order: place among the tasks of a leaderboard; those that say nothing come last, by name.
        gradual: metric that says how wrong a single answer is, where the first headline metric is yes or no.
        metric_titles: how tables call a metric, where :func:`metric_title` does not find it by itself.
        answer: part of a prediction that it scores: "boxes", "point" or "mask"; empty: scored where it is named.
        generalised: an expression may have any number of targets, none included.
        needs_masks: computed from masks: left out for a method that is built without them.
        predicted_by: further tasks of a method whose predictions will do, e.g. "rec" for a metric of single boxes.
        annotated_by: further tasks of a dataset whose annotations will do.
        lower_is_better: the best number of its headline metrics is the lowest.
        on_request: never scored because method and data allow it, only where it is named (``eval.variants``, ``task``).
        metric: "module:class" of the suite's own metrics; plug-ins register their class.
    """

    name: str
    primary: str = ""
    title: str = ""
    headline: tuple[str, ...] = ()
    order: int = 100
    gradual: str = ""
    metric_titles: Mapping[str, str] = field(default_factory=dict)
    answer: str = ""
    generalised: bool = False
    needs_masks: bool = False
    predicted_by: frozenset[str] = frozenset()
    annotated_by: frozenset[str] = frozenset()
    lower_is_better: bool = False
    on_request: bool = False
    metric: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", self.title or self.name)
        object.__setattr__(self, "headline", self.headline or ((self.primary,) if self.primary else ()))
        object.__setattr__(self, "gradual", self.gradual or next(iter(self.headline), ""))

    def applies(self, method_tasks: Collection[str], dataset_tasks: Collection[str], masks: bool = True) -> bool:
        """Whether it can be computed from what a method predicts and a dataset annotates.

        ``masks``: whether the method predicts masks as it is built.
        """
        annotated = not {self.name, *self.annotated_by}.isdisjoint(dataset_tasks)
        return annotated and self.is_predicted(method_tasks) and (masks or not self.needs_masks)

    def is_predicted(self, method_tasks: Collection[str]) -> bool:
        """Whether the predictions of a method (or of one of its outputs) that does these tasks will do."""
        return not {self.name, *self.predicted_by}.isdisjoint(method_tasks)

    def metric_title(self, metric: str) -> str:
        """How tables call one of its metrics."""
        title = self.metric_titles.get(metric) or _SPELLINGS.get(metric)
        return title or re.sub(r"^(prec|recall|acc|f1)\b", lambda match: match[0].capitalize(), metric)


# Boxes before masks: of the tasks that a run scores, the first one's primary metric selects the checkpoint.
SUITE = {
    task.name: task
    for task in (
        Task("rec", "prec@0.5", "REC", order=0, gradual="miou", answer="boxes", metric="vgbench.metrics.rec:REC"),
        Task(
            "grec",
            "pr@f1",
            "GREC",
            ("pr@f1", "n_acc"),
            order=2,
            answer="boxes",
            generalised=True,
            metric="vgbench.metrics.grec:GREC",
        ),
        Task(
            "pointing",
            "pointing_acc",
            "Pointing game",
            order=4,
            metric_titles={"pointing_acc": "Pointing"},
            answer="point",
            annotated_by=frozenset({"rec"}),
            metric="vgbench.metrics.pointing:Pointing",
        ),
        Task(
            "res",
            "miou",
            "RES",
            ("miou", "oiou"),
            order=1,
            answer="mask",
            needs_masks=True,
            metric="vgbench.metrics.res:RES",
        ),
        Task(
            "gres",
            "giou",
            "GRES",
            ("giou", "ciou", "n_acc"),
            order=3,
            answer="mask",
            generalised=True,
            needs_masks=True,
            metric="vgbench.metrics.gres:GRES",
        ),
        Task(  # ranked boxes for a noun phrase
            "phrase",
            "recall@1",
            order=5,
            answer="boxes",
            predicted_by=frozenset({"rec"}),
            metric="vgbench.metrics.recall:Recall",
        ),
        Task(  # does a model know when nothing is meant
            "rejection",
            "cgf1",
            "Rejection",
            ("cgf1", "auroc"),
            order=6,
            metric_titles={"cgf1": "cgF1", "il_mcc": "IL-MCC", "pmf1": "pmF1", "auroc": "AUROC", "n_acc": "N-acc"},
            generalised=True,
            predicted_by=frozenset({"rec", "grec"}),
            annotated_by=frozenset({"grec"}),
            on_request=True,
            metric="vgbench.metrics.rejection:Rejection",
        ),
        Task(  # are scores probabilities of being right
            "calibration",
            "ece",
            "Calibration",
            ("ece", "aurc"),
            order=7,
            metric_titles={"ece": "ECE", "aurc": "AURC", "brier": "Brier"},
            predicted_by=frozenset({"rec"}),
            annotated_by=frozenset({"rec"}),
            lower_is_better=True,
            on_request=True,
            metric="vgbench.metrics.calibration:Calibration",
        ),
        Task(  # does the right box of an expression score above all boxes of its edited versions, which fit nothing
            "contrast",
            "recall@1",
            "Contrast",
            ("recall@1", "prec@1", "auroc"),
            order=9,
            generalised=True,
            predicted_by=frozenset({"rec", "grec"}),
            annotated_by=frozenset({"grec"}),
            on_request=True,
            metric="vgbench.metrics.contrast:Contrast",
        ),
        Task(  # changed questions; vgbench stress makes them
            "stress",
            "right",
            "Stress tests",
            ("right", "plain"),
            order=8,
            metric_titles={"right": "Right", "plain": "Unchanged", "auroc": "AUROC", "fpr95": "FPR@95"},
            on_request=True,
            metric="vgbench.metrics.stress:Stress",
        ),
    )
}

STRESS = "stress"  # the task whose results stand in tables of their own, a row for each probe


def task_for(answer: str, generalised: bool = False) -> Task:
    """The suite's task that scores this part of predictions, for data of one target per expression or of any number."""
    fitting = [task for task in SUITE.values() if task.answer == answer and not task.on_request]
    return next((task for task in fitting if task.generalised == generalised), fitting[0])


def task_of(name: str) -> Task:
    """The task called ``name``, for printing: a task whose plug-in is not there has its name as title."""
    return SUITE.get(name) or _plugin_task(name, name in metrics.added())


@functools.cache
def _plugin_task(name: str, added: bool) -> Task:
    """``added``: registered in this process; part of the key, because that may happen later."""
    return metrics.load(name).task if added or name in metrics else Task(name)
