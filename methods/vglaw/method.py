"""VG-LAW as a method of the suite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgbench.checkpoints.names import KeyEntry, LoadReport, load_mapped
from vgbench.checkpoints.read import read_checkpoint
from vgbench.core.errors import UserError
from vgbench.layers.boxes import canvas_sides, cxcywh_to_xyxy, xyxy_to_cxcywh
from vgbench.layers.masks import RunLengths, resize_to_images, run_lengths
from vgbench.method import GroundingMethod
from vgbench.methods.vglaw import checkpoint
from vgbench.methods.vglaw.loss import box_losses, mask_losses
from vgbench.methods.vglaw.mindspore import looks_like_mindspore, read_mindspore
from vgbench.methods.vglaw.model import Output
from vgbench.methods.vglaw.options import Options
from vgbench.methods.vglaw.transforms import EvalTransform, TrainTransform, multi_scale_sizes, scaled_size
from vgbench.text.wordpiece import WordPiece
from vgbench.types import Batch, Geometry, Prediction, Transform

__all__ = ["VGLAW"]


class VGLAW(GroundingMethod):
    """Language-adaptive weight generation: one box and one mask per expression.

    Args:
        options: what :class:`~vgbench.methods.vglaw.options.Options` lists.
    """

    name = "VG-LAW"
    tasks = frozenset({"rec", "res"})
    checkpoint_signatures: ClassVar[Mapping[str, str]] = {"weight_generator.S": "a VG-LAW checkpoint"}
    pad_id = 0
    file_options = frozenset({"tokenizer"})
    required_files = frozenset({"tokenizer"})
    published_files = checkpoint.PUBLISHED
    skips_parameters = False

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = Options(**options)
        self.wants_masks = self.options.mode == "multitask"
        if not self.wants_masks:
            self.tasks = frozenset({"rec"})  # less than the class can do
        self.image_size = self.options.image_size
        self.model = self.options.network(self.vocab_size)

    def train_transform(self) -> Transform:
        sides = multi_scale_sizes(self.image_size) if self.options.multi_scale else (self.image_size,)
        return TrainTransform(self.image_size, sides, self.options.flip_whole_words)

    def eval_transform(self) -> Transform:
        return EvalTransform(self.image_size)

    @cached_property
    def _tokenizer(self) -> WordPiece:
        return WordPiece.from_option(self.options.tokenizer, self.options.vocab_size)

    @property
    def vocab_size(self) -> int:
        """Rows of the word table."""
        return len(self._tokenizer) if self.options.vocab_size is None else self.options.vocab_size

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        return self._tokenizer(texts, self.options.max_tokens)

    @property
    def text_shape(self) -> tuple[int, int]:
        return self.options.max_tokens, self.vocab_size

    def network(self, batch: Batch) -> Output:
        """The network alone, without losses."""
        return self.model(batch.image, batch.text_ids, batch.text_pad)

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """``bbox``, ``xiou`` and, in mode "multitask", ``focal`` and ``dice``; ``total`` is their plain sum."""
        height, width = batch.image.shape[-2:]
        canvas = canvas_sides(width, height, batch.boxes)
        terms = box_losses(output.boxes, xyxy_to_cxcywh(batch.boxes[:, 0] / canvas))
        if output.mask_logits is not None:
            if batch.masks is None:
                raise UserError("the dataset has no masks; train VG-LAW on it with method.mode=rec")
            terms |= mask_losses(output.mask_logits, batch.masks[:, 0])
        return {"total": torch.stack(list(terms.values())).sum(), **terms}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.losses(self.network(batch), batch)

    def compiled_blocks(self) -> Iterable[nn.Module]:
        model = self.model
        yield from (*model.visual_encoder.blocks, *model.text_encoder.encoder.layer)
        if model.up_sample is not None:
            yield model.up_sample

    def checkpointed_blocks(self) -> Iterable[nn.Module]:
        return self.model.visual_encoder.blocks

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        rates = {"visual_encoder": lr * self.options.visual_lr, "text_encoder": lr * self.options.text_lr, "rest": lr}
        groups: dict[str, list[Tensor]] = {name: [] for name in rates}
        for name, parameter in self.model.named_parameters():
            part = name.split(".", 1)[0]
            groups[part if part in rates else "rest"].append(parameter)
        return [{"name": name, "params": groups[name], "lr": rate} for name, rate in rates.items()]

    def bench_tables(self, device: torch.device, batch: int) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """The price of adaptive weights: memory beside the plain ViT's, ways to apply the weights compared."""
        from vgbench.methods.vglaw import bench

        visual, rank = self.model.visual_encoder, self.model.weight_generator.rank
        tokens, dim = (self.image_size // visual.patch_size) ** 2, visual.pos_embed.shape[-1]
        counts = sorted({1, batch})
        rows = [row for count in counts for row in bench.projection_table(count, tokens, dim, rank, device)]
        return {
            f"visual encoder, one training step at {self.image_size} px, float32": bench.encoder_table(
                self.model, self.image_size
            ),
            f"one q/k/v projection, {tokens} tokens, {dim} -> {3 * dim}, rank {rank}, float32": rows,
        }

    def predict(self, batch: Batch, outputs: Sequence[str] | None = None) -> dict[str, list[Prediction]]:
        """One box (score 1: the method gives none) and, in mode "multitask", one mask per expression.

        The mask is thresholded twice: in the network's frame, where the official metric is defined
        (``canvas_mask``), and after the padding has been cut off and the logits resized to the original image
        (``mask``). The heat map is the pooling attention over the image area.
        """
        return self.start_prediction(batch, outputs)()

    @torch.no_grad()
    def start_prediction(
        self, batch: Batch, outputs: Sequence[str] | None = None
    ) -> Callable[[], dict[str, list[Prediction]]]:
        output, geometry = self.network(batch), batch.geometry
        boxes = (cxcywh_to_xyxy(output.boxes) * self.image_size).cpu()
        attention = output.attention.float().cpu()
        runs = None if output.mask_logits is None else self._mask_runs(output.mask_logits, geometry)

        def rest() -> dict[str, list[Prediction]]:
            predictions = []
            for box, weights, frame in zip(boxes, attention, geometry, strict=True):
                height, width = frame.size
                limit = torch.tensor([width, height, width, height], dtype=torch.float32)
                box = torch.minimum(frame.to_original(box).clamp(min=0), limit)
                heatmap = self._heatmap(weights, frame)
                predictions.append(Prediction(box[None], torch.ones(1), heatmap=heatmap, geometry=frame))
            if runs is not None:
                self._add_masks(predictions, runs.encode())
            return {"main": predictions}

        return rest

    def _mask_runs(self, logits: Tensor, geometry: Sequence[Geometry]) -> RunLengths:
        """B masks on the canvas, then B masks of the images at the method's threshold and at each of ``mask_cuts``."""
        canvas = logits.sigmoid() > self.options.mask_threshold
        inner = [self._unpad(one, frame) for one, frame in zip(logits, geometry, strict=True)]
        whole = resize_to_images(inner, [frame.size for frame in geometry], torch.sigmoid)
        levels = [self.options.mask_threshold, *(percent / 100 for percent in self.options.mask_cuts)]
        return run_lengths([*canvas, *(probability > level for level in levels for probability in whole)])

    def _add_masks(self, predictions: Sequence[Prediction], encoded: Sequence[dict[str, Any]]) -> None:
        count = len(predictions)
        on_canvas, *by_level = (encoded[start : start + count] for start in range(0, len(encoded), count))
        for index, prediction in enumerate(predictions):
            prediction.canvas_mask, prediction.mask = on_canvas[index], by_level[0][index]
            if self.options.mask_cuts:
                cuts = zip(self.options.mask_cuts, by_level[1:], strict=True)
                prediction.masks_at = {percent: masks[index] for percent, masks in cuts}

    @staticmethod
    def _unpad(canvas: Tensor, geometry: Geometry) -> Tensor:
        """The image area of a map [S, S] at the network's resolution."""
        left, top = (round(value) for value in geometry.offset)
        height, width = scaled_size(geometry.size, geometry.scale[0])
        return canvas[top : top + height, left : left + width]

    def _heatmap(self, attention: Tensor, geometry: Geometry) -> Tensor:
        """The pooling attention [h, w] resampled to the image area, one value per cell."""
        cell = self.image_size / len(attention)
        height, width = scaled_size(geometry.size, geometry.scale[0])
        y = (torch.arange(n := max(1, round(height / cell))) + 0.5) * (height / n) + geometry.offset[1]
        x = (torch.arange(m := max(1, round(width / cell))) + 0.5) * (width / m) + geometry.offset[0]
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1) / self.image_size * 2 - 1
        sampled = F.grid_sample(attention[None, None], grid[None], padding_mode="border", align_corners=False)
        return sampled[0, 0]

    def official_names(self) -> list[KeyEntry]:
        """Our parameter names and the authors' (see :func:`checkpoint.official_names`)."""
        return checkpoint.official_names(self.model, len(self.model.visual_encoder.blocks))

    def read_official(self, path: Path, ema: bool = True) -> dict[str, Tensor]:
        """The state dict of an authors' file: a MindSpore ``.ckpt``, or its content as ``.safetensors``."""
        if path.is_file() and path.suffix == ".ckpt" and looks_like_mindspore(path):
            return read_mindspore(path)
        return read_checkpoint(path, ema)

    def load_official(self, state: Mapping[str, Tensor]) -> LoadReport:
        unused = checkpoint.UNUSED if self.wants_masks else (*checkpoint.UNUSED, checkpoint.MASK_HEAD)
        state, adapted = checkpoint.fit_positions(self.model.visual_encoder, state, "visual_encoder.")
        return load_mapped(self.model, state, self.official_names(), "an official VG-LAW checkpoint", unused, adapted)

    def adapt_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return checkpoint.fit_positions(self.model.visual_encoder, state, "model.visual_encoder.")[0]

    def load_pretrained(self, path: Path) -> LoadReport:
        """Start from Detectron2's ViTDet Mask R-CNN (``.pkl`` or ``.pth``) and a BERT, or one of them.

        Args:
            path: a file, or a folder that holds both.
        """
        return checkpoint.load_pretrained(self.model.text_encoder, self.model.visual_encoder, path)
