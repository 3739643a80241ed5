"""The pointing game on recorded heat maps, as the official evaluators play it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from vgbench.methods.evaluators.scoring import Entries, Row, Values, outcomes, table
from vgbench.metrics.pointing import enlarge, peak
from vgbench.types import Prediction

EACH = {"val_d": ("val",), "testA_d": ("testA",), "testB_d": ("testB",)}


def entries(cams: Mapping[str, Tensor]) -> Entries:
    """The entries on the maps of a case: ``cam24`` [n, 24, 24] for RefCOCO's protocol, ``cam16`` [n, 16, 16] else."""

    def heat(row: Row) -> Tensor:
        return cams["cam24" if row["protocol"] == "refcoco" else "cam16"][row["cam_index"]]

    def score(rows: list[Row], proposals: bool = False) -> float:
        targets = table({"key": r["id"], "size": r["image_size"], "boxes": r["gt_boxes"]} for r in rows)
        predictions = []
        for row in rows:
            boxes = torch.tensor(row["detections_xywh"] if proposals else []).reshape(-1, 4)
            boxes = torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1)
            predictions.append(Prediction(boxes, torch.ones(len(boxes)), heatmap=heat(row)))
        spec, name = ("pointing/box_from_proposals", "prec@0.5") if proposals else ("pointing", "pointing_acc")
        return outcomes(spec, targets, predictions).ratios[name].value / 100

    def by_split(rows: list[Row], names: Mapping[str, Sequence[str]], proposals: bool = False) -> Values:
        return {key: score([r for r in rows if r["split"] in parts], proposals) for key, parts in names.items()}

    def of_protocol(rows: list[Row], name: str) -> list[Row]:
        return [r for r in rows if r["protocol"] == name]

    def refcoco(name: str, rows: list[Row]) -> Values:
        return by_split(of_protocol(rows, "refcoco"), EACH)

    def refclef(name: str, rows: list[Row]) -> Values:
        return by_split(of_protocol(rows, "refcoco"), {"val_d": ("val",), "test": ("testA", "testB")})

    def flickr(name: str, rows: list[Row]) -> Values:
        return by_split(of_protocol(rows, "flickr"), {"val_d": ("val",), "test": ("test",)})

    def box_from_proposals(name: str, rows: list[Row]) -> Values:
        # The official code keeps the previous answer where no proposal has heat; those samples are not in the entry.
        warm = [r for r in of_protocol(rows, "refcoco") if heat(r).min() >= 0]
        return by_split(warm, EACH, proposals=True)

    def points(name: str, rows: list[Row]) -> Values:
        return [list(peak(enlarge(heat(r), tuple(r["image_size"])))) for r in rows]

    return {
        "amc.pointing.refcoco": refcoco,
        "amc.pointing.refclef_style": refclef,
        "amc.pointing.flickr": flickr,
        "amc.box_from_proposals": box_from_proposals,
        "points_xy": points,
    }
