"""The contract between a grounding method and the suite.

A method never sees a file format and never computes a metric. It gets a :class:`Sample` (one image, one expression,
its targets) through its own transforms, a collated :class:`Batch`, and returns losses while training and named sets
of :class:`Prediction` (in pixels of the original image) otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import torch
from torch import Tensor, nn
from torchvision import tv_tensors

if TYPE_CHECKING:
    from vgbench.table import AnnotationTable

__all__ = ["Batch", "Geometry", "GroundingMethod", "LoadReport", "Prediction", "Sample", "Transform"]


@dataclass(frozen=True)
class Geometry:
    """How an original image lies in the network input: ``network = original * scale + offset`` per axis.

    Attributes:
        scale: (x, y), network pixels per original pixel.
        offset: (x, y), network pixels left of and above the image (letter-box padding), 0 without padding.
        size: (height, width) of the original image.
        canvas: (height, width) of the network input.
    """

    scale: tuple[float, float]
    offset: tuple[float, float]
    size: tuple[int, int]
    canvas: tuple[int, int]

    def to_original(self, boxes: Tensor) -> Tensor:
        """Boxes [..., 4] xyxy from network to original pixels; not clipped."""
        shift = boxes.new_tensor([*self.offset, *self.offset])
        return (boxes - shift) / boxes.new_tensor([*self.scale, *self.scale])

    def to_network(self, boxes: Tensor) -> Tensor:
        """Boxes [..., 4] xyxy from original to network pixels."""
        return boxes * boxes.new_tensor([*self.scale, *self.scale]) + boxes.new_tensor([*self.offset, *self.offset])


class Sample(TypedDict, total=False):
    """One image and one expression on their way through a method's transform.

    Before the transform ``image`` is uint8 RGB [3, H, W] and boxes and masks are in original pixels; after it
    ``image`` is the normalised float32 network input, boxes and masks are in network pixels, ``geometry`` is set, and
    ``text`` is the text to be tokenised (cleaned as the method wants it).
    """

    image: tv_tensors.Image
    boxes: tv_tensors.BoundingBoxes  # [n, 4] xyxy float32, n = 0: no target
    masks: tv_tensors.Mask  # [n, H, W] uint8; absent when the dataset has none or the method asks for none
    text: str
    pad: Tensor  # [H, W] bool, True = padding of the network input; absent: nothing is padded
    geometry: Geometry
    key: str  # the expression's key in the annotation table
    image_id: int  # of the annotation table
    extra: dict[str, Tensor]  # per-expression inputs that the method declares in ``extra_inputs``


Transform = Callable[[Sample], Sample]
"""Randomness inside a transform comes from torch's default generator only: the loader seeds it per sample."""


@dataclass
class Batch:
    """Collated samples; B samples, at most M targets each (M = 1 for single-target data).

    Attributes:
        image: [B, 3, H, W] float32, normalised.
        image_pad: [B, H, W] bool, True = padding, or None when nothing is padded.
        text_ids: [B, L] int64.
        text_pad: [B, L] bool, True = padding.
        boxes: [B, M, 4] float32 xyxy in network pixels; rows without a target are 0.
        valid: [B, M] bool, True = the row is a target. A no-target expression has no True.
        masks: [B, M, H, W] uint8 or None.
        extra: tensors [B, ...] by name, as declared in :attr:`GroundingMethod.extra_inputs`.
        geometry: one per sample.
        keys: one per sample.
        texts: the texts as the transform left them.
        skipped: reasons of the samples that had to be left out.
        image_ids: one per sample; expressions of one image share it (and, untouched by augmentation, the image).
    """

    image: Tensor
    text_ids: Tensor
    text_pad: Tensor
    boxes: Tensor
    valid: Tensor
    masks: Tensor | None = None
    image_pad: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)
    geometry: Sequence[Geometry] = ()
    keys: Sequence[str] = ()
    texts: Sequence[str] = ()
    skipped: Sequence[str] = ()
    image_ids: Sequence[int] = ()

    def __len__(self) -> int:
        return self.image.shape[0]

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """Apply ``function`` to every tensor."""
        changed: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Tensor):
                changed[item.name] = function(value)
        changed["extra"] = {name: function(value) for name, value in self.extra.items()}
        return replace(self, **changed)

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Batch:
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        return self.map(lambda tensor: tensor.pin_memory())


@dataclass
class Prediction:
    """What a method says about one expression, in pixels of the original image.

    Attributes:
        boxes: [n, 4] float32 xyxy, ranked, best first; [0, 4] where the method gives no box.
        scores: [n] float32 in [0, 1], never increasing along the list.
        mask: COCO RLE ``{"size": [h, w], "counts": str}`` of the union of the targets, or None.
        no_target: the method's own decision that nothing is meant, or None if it makes none.
        point: (x, y) of the peak of a heat map, integer pixel indices, or None.
        heatmap: [h, w] float32 of any size covering the whole image, for pictures and the pointing game, or None.
        canvas_mask: COCO RLE in the network's frame, for the metric variants that are defined there, or None.
        geometry: the frame of ``canvas_mask``.
        masks_at: the mask at other probabilities than the method's own, in percent, for the metric variant ``cut``.
    """

    boxes: Tensor
    scores: Tensor
    mask: dict[str, Any] | None = None
    no_target: bool | None = None
    point: tuple[int, int] | None = None
    heatmap: Tensor | None = None
    canvas_mask: dict[str, Any] | None = None
    geometry: Geometry | None = None
    masks_at: dict[int, dict[str, Any]] | None = None


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint loader did: every key of the file is in exactly one list.

    Attributes:
        used: keys whose values reached a parameter or buffer.
        unused: keys on the method's documented list of keys without effect.
        adapted: used keys whose shape had to be changed (interpolated position tables and the like).
        absent: parts of the model that only training needs and that the file lacks; they start anew.
    """

    used: tuple[str, ...]
    unused: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


class GroundingMethod(nn.Module, ABC):
    """Base class of all methods. Constructor arguments are the sizes and options of the model and of its losses."""

    name: ClassVar[str]
    tasks: ClassVar[frozenset[str]]  # subset of {"rec", "res", "grec", "gres", "pointing"}
    prediction_sets: ClassVar[tuple[str, ...]] = ("main",)  # what predict() gives; see vgbench.measure.only
    set_labels: ClassVar[Mapping[str, str]] = {}  # prediction set -> name of its row, where it has one of its own
    set_tasks: ClassVar[Mapping[str, frozenset[str]]] = {}  # prediction set -> what is scored of it, if not all
    requires_grad_at_inference: ClassVar[bool] = False
    extra_inputs: ClassVar[Mapping[str, tuple[int, ...]]] = {}  # name -> shape per expression
    pad_id: int = 1  # token id of padding
    wants_masks: bool = True  # masks are decoded and transformed only for methods (or configurations) that read them

    @abstractmethod
    def train_transform(self) -> Transform:
        """Transform of a training sample (augmentation included)."""

    @abstractmethod
    def eval_transform(self) -> Transform:
        """Deterministic transform of an evaluation sample."""

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Texts as the transform left them -> ids [B, L] int64 and padding mask [B, L] bool (True = padding)."""

    @property
    @abstractmethod
    def text_shape(self) -> tuple[int, int]:
        """(number of tokens per expression, size of the vocabulary): the shape of ``text_ids``, for measurements."""

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of a training batch: scalars by name. ``"total"`` is what is minimised, the others are logged."""

    @abstractmethod
    def predict(self, batch: Batch) -> dict[str, list[Prediction]]:
        """The sets of :attr:`prediction_sets` by name, one list entry per sample.

        Called in eval mode, without gradients unless :attr:`requires_grad_at_inference`. Parts of the model that none
        of these sets needs are not run.
        """

    @abstractmethod
    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Optimiser groups of the official recipe: ``{"name": ..., "params": [...], "lr": ...}``.
        Parameters that can never receive a gradient are left out."""

    @abstractmethod
    def load_official(self, state: Mapping[str, Tensor]) -> LoadReport:
        """Load a whole model from a state dict with the names of the authors' code.

        Raises:
            UserError: if a key is missing, has the wrong shape, or is neither used nor known to be without effect.
        """

    def read_official(self, path: Path, ema: bool = True) -> dict[str, Tensor]:
        """The state dict in a checkpoint file of the authors, for :meth:`load_official`.

        ``ema``: the moving average, if the file has one besides the raw weights.

        Raises:
            UserError: if the file is no such checkpoint.
        """
        from vgbench.checkpoint import read_checkpoint

        return read_checkpoint(path, ema)

    def load_pretrained(self, path: Path) -> LoadReport:
        """Start training from the encoder (backbone, language model) checkpoint that the official recipe names."""
        raise NotImplementedError(f"{self.name} has no pretrained parts")

    def adapt_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """A state dict of ours from another configuration, fitted to this one where the method can (image size)."""
        return state

    def training_part(self, name: str) -> str | None:
        """The part that an entry of the state dict belongs to if only training needs it ("momentum model"), else None.

        A file may lack such parts as a whole; ``vgbench export --slim`` leaves them out.
        """
        return None

    def renew(self, parts: Collection[str]) -> None:
        """Set parts that a loaded file lacks (see :meth:`training_part`) to what a training starts with."""

    def side_inputs(self, table: AnnotationTable) -> Mapping[str, Mapping[str, Tensor]]:
        """What comes with each expression from elsewhere: name in :attr:`extra_inputs` -> key of ``table`` -> tensor.

        Asked once for a training table and once for every evaluation of a split; names that are left out are missing in
        :attr:`Batch.extra`. Raises UserError if a file that the method was told to read does not fit the table.
        """
        return {}

    def bench_tables(self, device: torch.device, batch: int) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Tables that ``vgbench bench`` prints below its own, title -> rows: what this method's design costs."""
        return {}

    def notes(self) -> Sequence[str]:
        """What a reader of the record has to know about how this method ran, one sentence each."""
        return ()

    def on_step(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """Called before each training step (``epoch`` and ``step`` from 0), for freezing schedules and ramps."""

    def trainable(self) -> Iterable[nn.Parameter]:
        return (parameter for group in self.param_groups(1.0) for parameter in group["params"])
