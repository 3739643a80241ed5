"""Expressions against their edited versions, which fit nothing: FineCops-Ref (Liu et al., EMNLP 2024).

An expression is compared with its edited versions of each kind (text or image, what was edited, how hard): ``recall@k``
counts it if one of its boxes that are among the k highest scores of all of them fits (IoU >= 0.5); ``auroc`` is the
chance that the best score of an original is above that of an edited one, among the pairs of a kind; ``prec@k`` is the
precision of the originals by themselves. Definitions: ``evaluation/eval_metric_mmdet.py`` of
https://github.com/liujunzhuo/FineCops-Ref. An answer without a box has the score 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vgbench.metrics import boxes as overlaps
from vgbench.metrics import influence
from vgbench.metrics.base import GroundingMetric, Ratio, Variant
from vgbench.metrics.frames import Array
from vgbench.metrics.pairs import Pairs, pad
from vgbench.metrics.single import lone_targets
from vgbench.metrics.slices import authors_kinds
from vgbench.metrics.tasks import SUITE

TOPS = (1, 5, 10)
THRESHOLD = 0.5
EDIT = "edit"  # the rule of the kinds of edits in an annotation table
_SCORES = tuple(f"score{place}" for place in range(max(TOPS)))


@dataclass(frozen=True)
class ContrastRule:
    """There is one definition."""


class Contrast(GroundingMetric):
    """``recall@1``, ``@5``, ``@10`` and ``auroc`` of edited expressions, ``prec@1``, ``@5``, ``@10`` of the originals.

    An edited expression has no target, and the ``ref_id`` of its original; pairs whose original is not in the table
    (part of a split) do not count.
    """

    task = SUITE["contrast"]
    Rule = ContrastRule
    variants: ClassVar[dict[str, Variant]] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers kept per expression."""
        return ("ref", "meant", "kind", "hit", *_SCORES)

    def measure(self, pairs: Pairs) -> dict[str, Array]:
        """Per expression [n]: ``ref`` (-1: none), whether something is ``meant``, ``kind`` of the edit (-1: not
        named), ``hit``: the place of the first box that fits, from 1 on (0: none does), and the ten highest scores
        (0: no box).

        Raises:
            UserError: if an expression has several targets.
        """
        meant = pairs.target_counts > 0
        boxes, valid = pairs.padded_boxes()
        overlap = overlaps.iou(boxes, lone_targets(pairs, self.spec)[:, None])
        fits = valid & meant[:, None] & (overlap >= THRESHOLD)
        place = np.argmax(np.pad(fits, ((0, 0), (1, 0))), axis=1)  # 0 where nothing fits
        scores, _ = pad(pairs.predictions.scores, pairs.predictions.box_counts, len(_SCORES))
        scores = np.pad(scores, ((0, 0), (0, len(_SCORES) - scores.shape[1])))
        kinds = authors_kinds(pairs.table).get(EDIT)
        return {
            "ref": pairs.table.arrow.column("ref_id").fill_null(-1).to_numpy(),
            "meant": meant,
            "kind": np.full(len(pairs), -1) if kinds is None else kinds.index,
            "hit": place,
            **dict(zip(_SCORES, scores.T, strict=True)),
        }

    def ratios(self, columns: dict[str, Array]) -> dict[str, Ratio]:
        """``recall@k`` (of each original and kind, at its first edited version), ``auroc`` (at every edited version)
        and ``prec@k`` (at the originals)."""
        meant, hit = columns["meant"] > 0, columns["hit"]
        scores = np.stack([columns[name] for name in _SCORES], axis=1)
        edited, original = _links(columns["ref"], meant)
        kind = columns["kind"][edited]
        comparisons = np.stack([kind, columns["ref"][edited]], axis=1)
        _, first, member = np.unique(comparisons, axis=0, return_index=True, return_inverse=True)
        best = _best_scores(scores, edited, original[first], member.reshape(-1))
        ratios = {}
        for top in TOPS:
            own = scores[original[first]]
            among = ((own > 0) & (own >= best[:, top - 1 : top])).sum(1)
            place = hit[original[first]]
            recalled = (place > 0) & (place <= np.minimum(among, top))
            ratios[f"recall@{top}"] = _spread(edited[first], 1.0 * recalled, len(meant))
        ratios["auroc"] = _spread(edited, _auroc(kind, scores[original, 0], scores[edited, 0]), len(meant))
        return ratios | {f"prec@{top}": Ratio(1.0 * (meant & (hit > 0) & (hit <= top)), 1.0 * meant) for top in TOPS}


def _links(ref: Array, meant: Array) -> tuple[Array, Array]:
    """Rows of the edited expressions whose original is there, and of their originals."""
    originals = np.flatnonzero(meant & (ref >= 0))
    originals = originals[np.argsort(ref[originals], kind="stable")]
    edited = np.flatnonzero(~meant & (ref >= 0))
    if not len(originals):
        return edited[:0], edited[:0]
    place = np.minimum(np.searchsorted(ref[originals], ref[edited]), len(originals) - 1)
    linked = ref[originals[place]] == ref[edited]
    return edited[linked], originals[place[linked]]


def _best_scores(scores: Array, edited: Array, original: Array, member: Array) -> Array:
    """The highest scores of an original and all its edited versions of a kind together, descending.

    Args:
        scores: of every expression, descending, float64 [n, k].
        edited: rows of the edited expressions, [e].
        original: row of the original of each comparison, [c].
        member: the comparison that each edited expression is part of, [e].

    Returns:
        float64 [c, at least k].
    """
    counts = np.bincount(member, minlength=len(original))
    versions, _ = pad(scores[edited[np.argsort(member, kind="stable")]], counts)
    together = np.concatenate([scores[original], versions.reshape(len(original), np.prod(versions.shape[1:]))], axis=1)
    return -np.sort(-together, axis=1)


def _auroc(kind: Array, original: Array, edited: Array) -> Array:
    """Pseudo-values of the AUROC within each kind, so that their mean over a kind is its AUROC."""
    values = np.zeros(len(kind))
    for number in np.unique(kind):
        members = kind == number
        values[members] = influence.auroc(original[members], edited[members]).num
    return values


def _spread(rows: Array, values: Array, count: int) -> Ratio:
    """A mean over some of the expressions."""
    num, den = np.zeros(count), np.zeros(count)
    num[rows], den[rows] = values, 1.0
    return Ratio(num, den)
