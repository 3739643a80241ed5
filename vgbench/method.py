"""The contract between a grounding method and the suite.

A method never sees a file format and never computes a metric. It gets a :class:`Sample` (one image, one expression,
its targets) through its own transforms, a collated :class:`Batch`, and returns losses while training and named sets
of :class:`Prediction` (in pixels of the original image) otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from vgbench.data.table import AnnotationTable
from vgbench.checkpoints.names import LoadReport
from vgbench.core.errors import UserError
from vgbench.core.published import PublishedFile
from vgbench.types import Batch, Prediction, Transform, Usage

"""Randomness inside a transform comes from torch's default generator only: the loader seeds it per sample."""


class GroundingMethod(nn.Module, ABC):
    """Base class of all methods. Constructor arguments are the sizes and options of the model and of its losses."""

    name: ClassVar[str]
    title: str = ""  # what leaderboards call it; empty: its name
    tasks: frozenset[str]  # subset of {"rec", "res", "grec", "gres", "pointing"}, or tasks of plug-in metrics
    outputs: tuple[str, ...] = ("main",)  # heads that give predictions of their own
    output_labels: Mapping[str, str] = MappingProxyType({})  # output -> name of its row, where it has one of its own
    output_tasks: Mapping[str, frozenset[str]] = MappingProxyType({})  # output -> what is scored of it, if not all
    requires_grad_at_inference: ClassVar[bool] = False
    auxiliary_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})  # name -> shape per expression
    file_options: ClassVar[frozenset[str]] = frozenset()  # constructor arguments that say where a file lies
    required_files: ClassVar[frozenset[str]] = frozenset()  # those that have no default: a vocabulary
    published_files: ClassVar[tuple[PublishedFile, ...]] = ()  # vocabularies and weights that others publish
    handling_options: ClassVar[frozenset[str]] = frozenset()  # those that say how it is computed, not what: time-outs
    program_options: ClassVar[frozenset[str]] = frozenset()  # those whose file is run: never taken from a stored model
    checkpoint_signatures: ClassVar[Mapping[str, str]] = MappingProxyType({})  # telling keys -> what such a file is
    pad_id: int = 1  # token id of padding
    remote: ClassVar[bool] = False  # a server predicts: there are no weights here, and nothing can be measured
    steady: ClassVar[bool] = True  # a prediction takes the same FLOPs whatever is asked and answered
    answer_style: str = ""  # how the words of a language model are read, a style of `vgbench score`; empty: no words
    skips_parameters: bool = True  # a trained parameter may stay without gradient in some step (what DDP looks for)
    wants_masks: bool = True  # masks are decoded and transformed only for methods (or configurations) that read them

    @property
    def variant(self) -> str:
        """Size or version that tables print behind the label; empty: that of the chosen configuration ("large")."""
        return ""

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
    def predict(self, batch: Batch, outputs: Sequence[str] | None = None) -> dict[str, list[Prediction]]:
        """Predictions by output, one list entry per sample.

        ``outputs``: some of :attr:`outputs`; None: all of them. A method with one output need not take it.
        Called in eval mode, without gradients unless :attr:`requires_grad_at_inference`. Parts of the model that none
        of these outputs needs are not run.
        """

    def start_prediction(
        self, batch: Batch, outputs: Sequence[str] | None = None
    ) -> Callable[[], dict[str, list[Prediction]]]:
        """:meth:`predict` as far as the device is needed; the function that is returned does the rest on the host.

        Evaluation calls that function in a thread, while the next batches are on the device: strings of masks and
        decisions on heat maps cost no time then. It may read nothing of the model that changes.
        """
        predictions = self.predict(batch, outputs) if outputs else self.predict(batch)
        return lambda: predictions

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
        from vgbench.checkpoints.read import read_checkpoint

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

    def auxiliary_inputs(self, table: AnnotationTable) -> Mapping[str, Mapping[str, Tensor]]:
        """What comes with each expression from elsewhere: name in :attr:`auxiliary_shapes` -> key -> tensor.

        Asked once for a training table and once for every evaluation of a split; names that are left out are missing in
        :attr:`Batch.auxiliary`. Raises UserError if a file that the method was told to read does not fit the table.
        """
        return {}

    def prepare(self, folder: Path, tasks: Collection[str]) -> None:
        """Called on every process before the model is scored.

        Args:
            folder: the run folder, for what the method keeps of its work so that a stopped evaluation can go on.
            tasks: what will be scored, e.g. {"rec", "pointing"}.
        """

    def usage(self) -> Usage | None:
        """What the answers since :meth:`prepare` cost, on all processes; None: nothing is counted."""
        return None

    def compiled_blocks(self) -> Iterable[nn.Module]:
        """The modules that ``compile`` compiles, each by itself: repeated layers, and heads of many small operations.

        They must be called as modules (``layer(x)``) and layers of one class must not read
        numbers of their own (an index, a rate) in ``forward``, so that they share one compiled code. In mixed
        precision their linear layers get weights that are in the lower precision already; what is to be computed in
        float32 in spite of that stays outside, or casts its weights.
        """
        return ()

    def checkpointed_blocks(self) -> Iterable[nn.Module]:
        """The layers that ``checkpointing`` runs again in the backward pass instead of keeping what they computed."""
        return ()

    def sharded_blocks(self) -> Iterable[nn.Module]:
        """The layers that ``trainer=fsdp`` spreads over the processes each by itself; all else is one more unit.

        They must be called as modules, and nobody else may read their parameters in a forward pass.
        """
        return self.checkpointed_blocks()

    def replicated_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters that every process keeps whole under ``trainer=fsdp``: those that ``forward`` itself writes."""
        return ()

    def bench_tables(self, device: torch.device, batch: int) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Tables that ``vgbench bench`` prints below its own, title -> rows: what this method's design costs."""
        return {}

    @classmethod
    def identity(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """The constructor arguments that make two runs of this method different experiments.

        ``options``: constructor arguments by name. Left out are :attr:`file_options`, because a file may lie anywhere,
        and :attr:`handling_options`.
        """
        left_out = cls.file_options | cls.handling_options
        return {name: value for name, value in options.items() if name not in left_out}

    def notes(self) -> Sequence[str]:
        """What a reader of the record has to know about how this method ran, one sentence each."""
        return ()

    def on_step(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """Called before each training step (``epoch`` and ``step`` from 0), for freezing schedules and ramps."""

    def trainable(self) -> Iterable[nn.Parameter]:
        return (parameter for group in self.param_groups(1.0) for parameter in group["params"])


class EvaluationOnly(GroundingMethod):
    """Base class of methods that are trained elsewhere and evaluated here."""

    no_training: ClassVar[str] = "this method is evaluated only; use vgbench eval"  # what a user is told who trains it

    def train_transform(self) -> Transform:
        raise UserError(self.no_training)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        raise UserError(self.no_training)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        return []
