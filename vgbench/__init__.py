"""VGBench: train, evaluate and compare visual-grounding methods.

In a notebook::

    model = vgbench.load("shipped:METHOD")          # or a run folder, hf://ORG/NAME, an authors' checkpoint
    model.predict("photo.jpg", "the red mug")       # boxes, scores, mask, heat map; draws itself
    split = vgbench.dataset("NAME", split="val", root="data")
    vgbench.evaluate(model.predict_split(split), split)

The names below are what a plug-in or a notebook needs; each is imported when it is first asked for, so that
``import vgbench`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgbench.api.answer import Answer as Answer
    from vgbench.api.data import Example as Example
    from vgbench.api.data import Split as Split
    from vgbench.api.data import dataset as dataset
    from vgbench.api.model import Model as Model
    from vgbench.api.model import load as load
    from vgbench.api.runs import compare as compare
    from vgbench.api.runs import run as run
    from vgbench.api.scoring import Report as Report
    from vgbench.api.scoring import evaluate as evaluate
    from vgbench.bridges.torchmetric import GroundingMeter as GroundingMeter
    from vgbench.checkpoints.names import LoadReport as LoadReport
    from vgbench.core.errors import UserError as UserError
    from vgbench.data.builder import ImageRecord as ImageRecord
    from vgbench.data.builder import SentenceIds as SentenceIds
    from vgbench.data.builder import TableBuilder as TableBuilder
    from vgbench.data.builder import Targets as Targets
    from vgbench.data.checks import BadSample as BadSample
    from vgbench.data.dataset import Counts as Counts
    from vgbench.data.dataset import GroundingData as GroundingData
    from vgbench.data.table import AnnotationTable as AnnotationTable
    from vgbench.data.verify import verify as verify
    from vgbench.method import GroundingMethod as GroundingMethod
    from vgbench.metrics.base import GroundingMetric as GroundingMetric
    from vgbench.metrics.base import Ratio as Ratio
    from vgbench.metrics.base import Variant as Variant
    from vgbench.metrics.pairs import Pairs as Pairs
    from vgbench.metrics.tasks import Task as Task
    from vgbench.probes.base import Probe as Probe
    from vgbench.types import Batch as Batch
    from vgbench.types import Geometry as Geometry
    from vgbench.types import Prediction as Prediction
    from vgbench.types import Sample as Sample
    from vgbench.types import Transform as Transform

__version__: str

#: public name -> module that it comes from
PUBLIC = {
    "Answer": "vgbench.api.answer",
    "Example": "vgbench.api.data",
    "GroundingMeter": "vgbench.bridges.torchmetric",
    "Model": "vgbench.api.model",
    "Report": "vgbench.api.scoring",
    "Split": "vgbench.api.data",
    "compare": "vgbench.api.runs",
    "dataset": "vgbench.api.data",
    "evaluate": "vgbench.api.scoring",
    "load": "vgbench.api.model",
    "run": "vgbench.api.runs",
    "AnnotationTable": "vgbench.data.table",
    "BadSample": "vgbench.data.checks",
    "Batch": "vgbench.types",
    "Counts": "vgbench.data.dataset",
    "Geometry": "vgbench.types",
    "GroundingData": "vgbench.data.dataset",
    "GroundingMethod": "vgbench.method",
    "GroundingMetric": "vgbench.metrics.base",
    "ImageRecord": "vgbench.data.builder",
    "LoadReport": "vgbench.checkpoints.names",
    "Pairs": "vgbench.metrics.pairs",
    "Prediction": "vgbench.types",
    "Probe": "vgbench.probes.base",
    "Ratio": "vgbench.metrics.base",
    "Sample": "vgbench.types",
    "SentenceIds": "vgbench.data.builder",
    "TableBuilder": "vgbench.data.builder",
    "Targets": "vgbench.data.builder",
    "Task": "vgbench.metrics.tasks",
    "Transform": "vgbench.types",
    "UserError": "vgbench.core.errors",
    "Variant": "vgbench.metrics.base",
    "verify": "vgbench.data.verify",
}

__all__ = ["__version__", *PUBLIC]


def __getattr__(name: str) -> Any:
    if name == "__version__":  # comes from the git tags when the package is built
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("vgbench")
        except PackageNotFoundError:  # the same code under its other name
            return version("vgbench-core")
    if name not in PUBLIC:
        raise AttributeError(f"module 'vgbench' has no attribute {name!r}")
    return getattr(importlib.import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC])
