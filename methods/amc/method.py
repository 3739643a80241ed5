"""AMC as a method of the suite: training step, Grad-CAM prediction, optimiser groups, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vgbench.checkpoints.names import LoadReport
from vgbench.checkpoints.read import read_checkpoint
from vgbench.method import GroundingMethod
from vgbench.methods.amc import heat as decisions
from vgbench.methods.amc.checkpoint import PUBLISHED, TRAINING_PARTS, fitted, load_albef
from vgbench.methods.amc.gradcam import Expressions, explain_matching, explain_similarity
from vgbench.methods.amc.model import ALBEF
from vgbench.methods.amc.options import Options
from vgbench.methods.amc.step import UNDRAWN, Draws, Pairs, Trace, training_losses
from vgbench.methods.amc.transforms import EvalTransform, TrainTransform, box_masks
from vgbench.text.wordpiece import WordPiece
from vgbench.types import Batch, Geometry, Prediction, Transform


class AMC(GroundingMethod):
    """ALBEF with attention mask consistency.

    Source: "Improving Visual Grounding by Encouraging Consistent Gradient-based Explanations", arXiv 2206.15462;
    official repository uvavision/AMC-grounding, base model salesforce/ALBEF (arXiv 2107.07651).

    Args:
        options: what :class:`~vgbench.methods.amc.options.Options` lists.
    """

    name = "AMC"
    tasks = frozenset({"rec", "pointing"})
    checkpoint_signatures: ClassVar[Mapping[str, str]] = {
        "visual_encoder_m.*": "an ALBEF/AMC checkpoint",
        "text_encoder.*": "an ALBEF/AMC checkpoint",
    }
    requires_grad_at_inference = True
    file_options = frozenset({"tokenizer", "proposals"})
    required_files = frozenset({"tokenizer"})
    published_files = PUBLISHED
    skips_parameters = False
    wants_masks = False  # the rectangular masks of the loss are made from the boxes

    alpha: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = Options(**options)
        tokenizer, proposals = self.options.tokenizer, self.options.proposals
        self._tokenizer = None
        if tokenizer is not None:
            self._tokenizer = WordPiece.from_option(tokenizer, self.options.vocab_size, sep=False)
        self.words = self.options.words(self._tokenizer)
        self.pad_id = self.words.pad_id
        self._proposals = {} if proposals is None else decisions.read_proposals(Path(proposals))
        # Without boxes to rank there is nothing to score as REC.
        self.tasks = frozenset({"rec", "pointing"} if proposals or self.options.heat_box else {"pointing"})
        if self.options.heat_box:
            self.outputs = ("main", "heat_box")
            # Point of "main" and boxes of "heat_box"; also boxes of "main" where there are proposals to rank.
            points = {} if proposals else {"main": frozenset({"pointing"})}
            self.output_tasks = {"heat_box": frozenset({"rec", "phrase"}), **points}
        self.step = self.options.step(self.words)
        self.network = ALBEF(
            self.options.vision(), self.options.text(self.words), self.options.embed_dim, self.options.queue_size
        )
        # A tensor, so that a compiled training step is not compiled again whenever it changes.
        self.register_buffer("alpha", torch.tensor(self.options.alpha), persistent=False)

    @property
    def variant(self) -> str:
        """What a leaderboard adds to the name; plain ALBEF is a row of its own."""
        return "" if self.options.mask_consistency else "without mask consistency"

    @property
    def text_shape(self) -> tuple[int, int]:
        return self.options.max_tokens, self.words.vocab_size

    def train_transform(self) -> Transform:
        options = self.options
        return TrainTransform(
            options.image_size,
            options.train_max_words,
            self._shorten,
            options.augmentation,
            options.fix_saturation,
            options.swap_left_right,
            options.mask_all,
        )

    def _shorten(self, text: str) -> str:
        """A caption cut to ``max_tokens`` ids; whole without a vocabulary (speed is measured without one)."""
        return text if self._tokenizer is None else self._tokenizer.truncate(text, self.options.max_tokens - 1)

    def eval_transform(self) -> Transform:
        return EvalTransform(self.options.eval_size, self.options.eval_resize, self.options.max_words)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """``[CLS] pieces`` without ``[SEP]``, padded to the longest text.

        Training captions were cut by the transform; nothing else is, except at the end of the position table.
        """
        tokenizer = self._tokenizer or WordPiece.from_file(None)  # which says what to set
        return tokenizer(texts, max_length=self.options.max_positions, pad_to_max=False)

    def on_step(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """Set alpha: rises linearly from 0 over the steps of epoch 0."""
        self.network.clamp_temperature()  # the parameter itself; a sharded one is written anew in every forward pass
        self.alpha.fill_(self.options.alpha * (min(1.0, step / steps_per_epoch) if epoch == 0 else 1.0))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """One training step's losses: ``mlm``, ``ita``, ``itm``, ``gcam_masked1`` (mean margin), ``gcam_masked2``
        (maximum margin), ``gcam_masked`` (their weighted sum) and ``total``.

        Every call is a training step, whatever the dropout mode: it clamps the temperature, updates the momentum
        model and writes the batch into the queues (gathered over all processes, which need equal batch sizes).
        ``batch.masks`` holds the box masks that :meth:`train_transform` makes (None: taken from ``batch.boxes``); a
        sample without a valid target, or with an empty mask, takes no part in the AMC terms.
        """
        masks = batch.masks
        if masks is None:
            size = (batch.image.shape[-2], batch.image.shape[-1])
            masks = box_masks(batch.boxes.flatten(0, 1), size).unflatten(0, batch.valid.shape)
        mask = (masks * batch.valid[..., None, None]).amax(1)
        return self.training_losses(Pairs(batch.image, batch.text_ids, batch.text_pad, mask))

    def training_losses(self, pairs: Pairs, draws: Draws = UNDRAWN, trace: Trace | None = None) -> dict[str, Tensor]:
        """The step on pairs that are ready (see :func:`vgbench.methods.amc.step.training_losses`)."""
        return training_losses(self.network, self.step, pairs, self.alpha, draws, trace)

    def heatmaps(self, expressions: Expressions) -> Tensor:
        """Heat maps [B, h, w] float32 of B expressions over I images, not normalised."""
        if self.options.heat == "itc":
            return explain_similarity(self.network, expressions, self.options.itc_block)
        return explain_matching(self.network, expressions, self.options.gradcam_layer)["gradcam"]

    def predict(self, batch: Batch, outputs: Sequence[str] | None = None) -> dict[str, list[Prediction]]:
        """Heat map, its peak, and ranked proposals where there are any.

        Expressions of the batch that have the same ``image_ids`` entry share one encoding of the image.
        """
        return self.start_prediction(batch, outputs)()

    def start_prediction(
        self, batch: Batch, outputs: Sequence[str] | None = None
    ) -> Callable[[], dict[str, list[Prediction]]]:
        first, index = _shared_images(batch)
        images = batch.image[first]
        expressions = Expressions(images, index.to(images.device), batch.text_ids, batch.text_pad)
        heat = self.heatmaps(expressions).cpu()  # decisions are made per sample at the original size, on the host
        geometry = batch.geometry
        image_ids: Sequence[int | None] = batch.image_ids or [None] * len(batch)

        def rest() -> dict[str, list[Prediction]]:
            predictions: dict[str, list[Prediction]] = {name: [] for name in outputs or self.outputs}
            for one, frame, image in zip(heat, geometry, image_ids, strict=True):
                for name, prediction in self._decisions(one, frame, image, tuple(predictions)).items():
                    predictions[name].append(prediction)
            return predictions

        return rest

    def _decisions(
        self, heat: Tensor, frame: Geometry, image: int | None, outputs: Sequence[str]
    ) -> dict[str, Prediction]:
        """What each output makes of a heat map [h, w] of the image with the number ``image``."""
        full = decisions.enlarge(heat, frame.size)
        point = decisions.peak(full)
        answers = {}
        for name in outputs:
            if name == "heat_box":
                proposals = decisions.heat_boxes(full)
            else:
                proposals = torch.zeros(0, 4) if image is None else self._proposals.get(image, torch.zeros(0, 4))
            boxes, scores = decisions.rank(full, proposals)
            answers[name] = Prediction(boxes=boxes, scores=scores, point=point, heatmap=heat)
        return answers

    def compiled_blocks(self) -> Iterable[nn.Module]:
        network = self.network
        for vision in (network.visual_encoder, network.visual_encoder_m):
            yield from vision.blocks
        for text in (network.text_encoder, network.text_encoder_m):
            yield from text.bert.encoder.layer

    def checkpointed_blocks(self) -> Iterable[nn.Module]:
        return self.network.visual_encoder.blocks

    def sharded_blocks(self) -> Iterable[nn.Module]:
        return ()  # the momentum model's update reads the parameters of all blocks

    def replicated_parameters(self) -> Iterable[nn.Parameter]:
        return self.network.momentum_parameters()

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """``decay`` (the optimiser's weight decay) and ``no_decay`` (1-D tensors and biases).

        Position table, class token, embeddings and the scalar temperature are decayed, as in the official code. The
        momentum model has no place here.
        """
        groups: dict[str, list[torch.nn.Parameter]] = {"decay": [], "no_decay": []}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                plain = parameter.ndim == 1 or name.endswith(".bias")
                groups["no_decay" if plain else "decay"].append(parameter)
        return [
            {"name": "decay", "params": groups["decay"], "lr": lr},
            {"name": "no_decay", "params": groups["no_decay"], "lr": lr, "weight_decay": 0.0},
        ]

    def training_part(self, name: str) -> str | None:
        """Momentum model, queues and their pointers; the MLM head stays, nothing could stand in for it."""
        entry = name.removeprefix("network.")
        return next((part for part, pattern in TRAINING_PARTS.items() if pattern.match(entry)), None)

    def renew(self, parts: Collection[str]) -> None:
        """The momentum model starts as a copy; queues and pointers are as they were built."""
        if "momentum model" in parts:
            self.network.update_momentum(0.0)

    def load_official(self, state: Mapping[str, Tensor]) -> LoadReport:
        """A checkpoint of AMC (845 entries) or ALBEF (844), with or without ``bert.`` in the names of the text layers.

        See :func:`vgbench.methods.amc.checkpoint.load_albef` for what may be missing and what has no effect.
        """
        return load_albef(self.network, state)

    def adapt_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        own = self.state_dict()
        return {name: fitted(name, value, own[name]) if name in own else value for name, value in state.items()}

    def load_pretrained(self, path: Path) -> LoadReport:
        """``ALBEF.pth`` (14M images), the start of the official training."""
        return self.load_official(read_checkpoint(path))


def _shared_images(batch: Batch) -> tuple[list[int], Tensor]:
    """Rows of the batch with the distinct images, and for every row the number of its image among them [B]."""
    if len(batch.image_ids) != len(batch):
        return list(range(len(batch))), torch.arange(len(batch))
    place: dict[int, int] = {}
    first: list[int] = []
    index = []
    for row, image_id in enumerate(batch.image_ids):
        if image_id not in place:
            place[image_id] = len(first)
            first.append(row)
        index.append(place[image_id])
    return first, torch.tensor(index)
