"""ResVG as a method of the suite: transforms, losses, predictions, optimiser groups, checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from vgbench.checkpoints.names import LoadReport
from vgbench.core.errors import UserError
from vgbench.data.table import AnnotationTable
from vgbench.layers.boxes import canvas_sides, cxcywh_to_xyxy, xyxy_to_cxcywh
from vgbench.layers.sizes import check_at_most, check_counts, check_depths, check_multiple
from vgbench.method import GroundingMethod
from vgbench.methods.resvg.checkpoint import PUBLISHED, load_pretrained, load_whole, refit_offsets
from vgbench.methods.resvg.loss import score_loss, stage_losses
from vgbench.methods.resvg.model import Output, ResVGNetwork
from vgbench.methods.resvg.priors import find_priors
from vgbench.methods.resvg.transforms import EvalTransform, TrainTransform
from vgbench.text.wordpiece import WordPiece
from vgbench.types import Batch, Geometry, Prediction

__all__ = ["ResVG"]

# Optimiser groups by the parts of the network, with the group's rate relative to the base rate.
GROUPS = {
    "rest": ("bert_proj", "discriminative", "decoder", "prior_mlp", "box_head"),
    "backbone": ("backbone",),
    "vis_enc": ("encoder", "input_proj"),
    "bert": ("bert",),
}
PRETRAINED = ("backbone", "vis_enc", "bert")


def _check_sizes(image_size: int, max_tokens: int, network: Mapping[str, Any]) -> None:
    """
    Raises:
        UserError: for a number that no network can have.
    """
    counts = ("width", "heads", "stages", "encoder_ffn", "decoder_ffn", "averaged_layers")
    check_counts(image_size=image_size, max_tokens=max_tokens, **{name: network[name] for name in counts})
    check_depths(encoder_layers=network["encoder_layers"], max_offset=network["max_offset"])
    if network["prior_dim"] is not None:
        check_counts(prior_dim=network["prior_dim"])
    check_multiple(width=network["width"], heads=network["heads"])


class ResVG(GroundingMethod):
    """ResVG: one box for one expression.

    The semantic prior is the extra input "prior", one vector per expression (see :mod:`.priors`). A batch without it
    runs with a zero prior (the branch's biases stay active, as in the official network).

    Args:
        priors: where the priors come from (:func:`~.priors.find_priors`): a file of ``vgbench data priors`` or several,
            a folder of the authors, or "sketch"; None: the prior is switched off, and the record says so.
        image_size: side of the square canvas in pixels, officially a multiple of 32. On a larger grid than
            ``max_offset`` cells the relative-position tables, a fixed code, span the grid instead.
        max_tokens: text length T, [CLS] and [SEP] included.
        tokenizer: BERT's ``vocab.txt`` or a folder with it, or a ready tokenizer.
        use_image_mask: mask the padding of the canvas; the official code lets it take part in everything.
        whole_words: exchange left/right at a flip, and look for direction words, as whole words; the official code
            works on substrings ("bright" becomes "bleft").
        augmentation: further arguments of :class:`~.transforms.TrainTransform`.
        freeze_epochs: backbone, ``input_proj``, encoder and BERT do not learn in the first so many epochs.
        pretrained_lr: rate of those parts relative to the base rate.
        l1_weight, giou_weight: loss weights.
        score_weight: weight of :func:`~.loss.score_loss`; 0, without that loss, is official.
        backbone, bert, width, heads, encoder_layers, encoder_ffn, stages, decoder_ffn, averaged_layers, prior_dim,
            dropout, max_offset, position_in_values: see :class:`~.model.ResVGNetwork`. ``prior_dim=None`` is VLTVG.
    """

    name = "ResVG"
    pad_id = 0
    tasks = frozenset({"rec"})
    checkpoint_signatures: ClassVar[Mapping[str, str]] = {"visumodel.*": "a TransVG/ResVG checkpoint"}
    wants_masks = False
    file_options = frozenset({"tokenizer", "priors"})
    required_files = frozenset({"tokenizer"})
    published_files = PUBLISHED

    def __init__(
        self,
        priors: str | Path | Sequence[str | Path] | None = None,
        image_size: int = 640,
        max_tokens: int = 40,
        tokenizer: str | Path | WordPiece | None = None,
        use_image_mask: bool = False,
        whole_words: bool = False,
        augmentation: Mapping[str, Any] | None = None,
        freeze_epochs: int = 10,
        pretrained_lr: float = 0.1,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
        score_weight: float = 0.0,
        backbone: Mapping[str, Any] | None = None,
        bert: Mapping[str, Any] | None = None,
        width: int = 256,
        heads: int = 8,
        encoder_layers: int = 6,
        encoder_ffn: int = 2048,
        stages: int = 6,
        decoder_ffn: int = 2048,
        averaged_layers: int = 4,
        prior_dim: int | None = 512,
        dropout: float = 0.1,
        max_offset: int = 20,
        position_in_values: bool = False,
    ) -> None:
        super().__init__()
        network: dict[str, Any] = {"backbone": backbone, "bert": bert, "width": width, "heads": heads}
        network |= {"encoder_layers": encoder_layers, "encoder_ffn": encoder_ffn, "stages": stages}
        network |= {"decoder_ffn": decoder_ffn, "averaged_layers": averaged_layers, "prior_dim": prior_dim}
        network |= {"dropout": dropout, "max_offset": max_offset, "position_in_values": position_in_values}
        _check_sizes(image_size, max_tokens, network)
        self.image_size, self.max_tokens = image_size, max_tokens
        self.use_image_mask, self.whole_words = use_image_mask, whole_words
        self.augmentation = dict(augmentation or {})
        self.freeze_epochs, self.pretrained_lr = freeze_epochs, pretrained_lr
        self.l1_weight, self.giou_weight, self.score_weight = l1_weight, giou_weight, score_weight
        self._tokenizer_option = tokenizer
        self.auxiliary_shapes = {} if prior_dim is None else {"prior": (prior_dim,)}
        self.priors = priors
        self.model = ResVGNetwork(image_size=image_size, **network)
        if tokenizer is not None:  # without one no text is read
            check_at_most(**{"max_tokens": max_tokens, "bert.max_positions": self.model.bert.max_positions})
        # Freezing takes requires_grad away for a while; what never trains must stay apart from that.
        self._trained = frozenset(name for name, value in self.model.named_parameters() if value.requires_grad)
        self._frozen = False

    def train_transform(self) -> TrainTransform:
        return TrainTransform(self.image_size, self.use_image_mask, self.whole_words, **self.augmentation)

    def eval_transform(self) -> EvalTransform:
        return EvalTransform(self.image_size, self.use_image_mask)

    @cached_property
    def _tokenizer(self) -> WordPiece:
        size = self.model.bert.vocab_size
        return WordPiece.from_option(self._tokenizer_option, size, size_option="method.bert.vocab_size")

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return self._tokenizer(texts, self.max_tokens)

    def auxiliary_inputs(self, table: AnnotationTable) -> Mapping[str, Mapping[str, Tensor]]:
        """The prior of every expression, if there are priors."""
        if self.priors is None or self.model.prior_dim is None or not len(table):
            return {}
        priors = find_priors(self.priors, table)
        length = len(next(iter(priors.values())))
        if length != self.model.prior_dim:
            raise UserError(
                f"method.priors={self.priors}: {length} numbers per expression, the model takes "
                f"{self.model.prior_dim}; set method.prior_dim={length}, or make them with another encoder"
            )
        return {"prior": priors}

    @classmethod
    def identity(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Where the files of priors lie says nothing; that there are some, or sketches, makes another experiment."""
        source = options.get("priors")
        return super().identity(options) | {"priors": source if source in (None, "sketch") else "files"}

    def notes(self) -> Sequence[str]:
        if self.model.prior_dim is None:
            return ("no prior branch (method.prior_dim=null): this is VLTVG",)
        if self.priors is None:
            return ("the semantic prior was switched off (method.priors=null): its branch got zeros",)
        return ()

    @property
    def text_shape(self) -> tuple[int, int]:
        return self.max_tokens, self.model.bert.vocab_size

    def network(self, batch: Batch, attention: bool = False) -> Output:
        """The network on a batch; ``attention``: with attention weights.

        Raises:
            ValueError: if the prior is not [B, prior_dim].
        """
        prior = batch.auxiliary.get("prior") if self.model.prior_dim is not None else None
        if prior is not None and prior.shape != (len(batch), self.model.prior_dim):
            raise ValueError(f"prior is {list(prior.shape)}, expected {[len(batch), self.model.prior_dim]}")
        return self.model(batch.image, batch.text_ids, batch.text_pad, prior, batch.image_pad, attention)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``total`` and its terms, unweighted (:func:`~.loss.stage_losses`, :func:`~.loss.score_loss`)."""
        return self.losses(self.network(batch), batch)

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        height, width = batch.image.shape[-2:]
        target = xyxy_to_cxcywh(batch.boxes[:, 0]) / canvas_sides(width, height, batch.boxes)
        losses = stage_losses(output.boxes, target, self.l1_weight, self.giou_weight)
        if self.score_weight:
            losses["score"] = score_loss(output.score, target)
            losses["total"] = losses["total"] + self.score_weight * losses["score"]
        return losses

    def predict(self, batch: Batch, outputs: Sequence[str] | None = None) -> dict[str, list[Prediction]]:
        """One box per sample with score 1 (the model has none); the heat map is the verification score."""
        output = self.network(batch)
        boxes = original_boxes(output.boxes[-1], batch.geometry).cpu()
        heatmaps = content_map(output.score, batch.geometry).cpu()
        score = torch.ones(1)
        return {
            "main": [
                Prediction(boxes=box[None], scores=score, heatmap=heatmap)
                for box, heatmap in zip(boxes, heatmaps, strict=True)
            ]
        }

    def compiled_blocks(self) -> Iterable[nn.Module]:
        model = self.model
        yield from (model.backbone, *model.encoder.layers, *model.bert.encoder.layer)
        yield from (model.discriminative, *model.decoder.stages)

    def checkpointed_blocks(self) -> Iterable[nn.Module]:
        return (*self.model.encoder.layers, *self.model.bert.encoder.layer)

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """Groups "rest" (decoder side, at ``lr``), "backbone", "vis_enc", "bert" (at ``lr * pretrained_lr``)."""
        parameters = {name: value for name, value in self.model.named_parameters() if name in self._trained}
        groups = []
        for group, parts in GROUPS.items():
            members = [value for name, value in parameters.items() if name.split(".", 1)[0] in parts]
            if members:
                rate = lr * (self.pretrained_lr if group in PRETRAINED else 1.0)
                groups.append({"name": group, "params": members, "lr": rate})
        return groups

    def on_step(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """Freeze or thaw the pretrained parts. Their dropout stays active while they are frozen."""
        frozen = epoch < self.freeze_epochs
        if frozen == self._frozen:
            return
        parts = tuple(part for group in PRETRAINED for part in GROUPS[group])
        for name, value in self.model.named_parameters():
            if name in self._trained and name.split(".", 1)[0] in parts:
                value.requires_grad_(not frozen)
        self._frozen = frozen

    def adapt_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return refit_offsets(self, state)[0]

    def load_official(self, state: Mapping[str, Tensor]) -> LoadReport:
        return load_whole(self.model, state)

    def load_pretrained(self, path: Path) -> LoadReport:
        """Weights that training starts from: a file, or a folder with several; each is recognised by its names.

        ``detr-r50*.pth`` (backbone, ``input_proj``, encoder), bert-base-uncased (transformers or
        ``pytorch_pretrained_bert``), or a whole VLTVG or ResVG checkpoint (all but the prior branch).
        """
        return load_pretrained(self.model, path)


def original_boxes(boxes: Tensor, geometry: Sequence[Geometry]) -> Tensor:
    """Network output -> original pixels.

    Args:
        boxes: [B, 4] cxcywh relative to the canvas.
        geometry: one per sample.

    Returns:
        [B, 4] xyxy in pixels, clipped to the image: at 0 before the scale is taken off, at the far side after.
    """
    canvas, offset, scale, limit = (
        torch.tensor([2 * list(pair) for pair in pairs], dtype=torch.float32, device=boxes.device)
        for pairs in (
            [frame.canvas[::-1] for frame in geometry],
            [frame.offset for frame in geometry],
            [frame.scale for frame in geometry],
            [frame.size[::-1] for frame in geometry],
        )
    )
    pixels = (cxcywh_to_xyxy(boxes.float()) * canvas - offset).clamp(min=0)
    return torch.minimum(pixels / scale, limit)


def content_map(score: Tensor, geometry: Sequence[Geometry]) -> Tensor:
    """The part of the maps [B, h, w] under the original images, resampled to [B, h, w]: padding is cut off."""
    regions = torch.tensor(
        [
            [
                frame.offset[0] / frame.canvas[1],
                frame.offset[1] / frame.canvas[0],
                (frame.offset[0] + frame.size[1] * frame.scale[0]) / frame.canvas[1],
                (frame.offset[1] + frame.size[0] * frame.scale[1]) / frame.canvas[0],
            ]
            for frame in geometry
        ],
        dtype=torch.float32,
        device=score.device,
    )
    height, width = score.shape[-2:]
    regions = regions * regions.new_tensor([width, height, width, height])
    index = torch.arange(len(score), dtype=torch.float32, device=score.device)[:, None]
    rois = torch.cat([index, regions], dim=1)
    return roi_align(score[:, None].float(), rois, (height, width), sampling_ratio=2, aligned=True)[:, 0]
