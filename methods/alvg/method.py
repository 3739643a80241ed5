"""ALVG: one BEiT-3 encoder, text-guided image enhancement, a small decoder for boxes, a convolutional mask head.

Official code: yscfromchina/ALVG, commit 1fb2f7e8. Symbols: B batch, L text tokens, S input side, g = S / patch grid
side, N = g * g, D encoder width, E head width, Q queries (1: one target per expression), K decoder layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgbench.checkpoints.names import KeyEntry
from vgbench.core.errors import UserError
from vgbench.layers.masks import resize_to_images, run_lengths
from vgbench.layers.sizes import check_counts
from vgbench.methods.alvg import loss
from vgbench.methods.alvg.checkpoint import PUBLISHED, UNUSED, official_names
from vgbench.methods.alvg.model import ALVGNetwork, Outputs
from vgbench.methods.beit3.criterion import Targets, name_layers
from vgbench.methods.beit3.heads import detections, ranked_predictions
from vgbench.methods.beit3.method import BEiT3Method
from vgbench.predictions.table import GREC_SCORE_THRESHOLD
from vgbench.types import Batch, Prediction


class ALVG(BEiT3Method, ALVGNetwork):
    """ALVG for single-target (``num_queries=1``) and multi-target expressions.

    Besides the options of :class:`vgbench.methods.beit3.method.BEiT3Method`:

    Args:
        mask_channels: channels after the mask head's first convolution.
        masks: learn and predict masks; False: boxes only, and the attention losses are drawn from the boxes.
        enhance: with the image enhancement module.
        score_attention_weight, decoder_attention_weight: w_s and w_d.
        focal_weight, dice_weight: weights of the mask losses.
        mask_loss_on: what the mask losses apply their sigmoid to: "probability" (official: a second sigmoid) or
            "logits".
    """

    name: ClassVar[str] = "ALVG"
    tasks = frozenset({"rec", "res", "grec", "gres"})
    published_files = PUBLISHED
    checkpoint_signatures: ClassVar[Mapping[str, str]] = {
        "head.transformer.img_enhance.*": "an ALVG checkpoint",
        "head.transformer.decoder.layers.0.linear1.weight": "an ALVG checkpoint without image enhancement",
    }

    def __init__(
        self,
        *,
        mask_channels: int = 128,
        masks: bool = True,
        enhance: bool = True,
        score_attention_weight: float = 40.0,
        decoder_attention_weight: float = 1.0,
        focal_weight: float = 15.0,
        dice_weight: float = 6.0,
        mask_loss_on: Literal["probability", "logits"] = "probability",
        **shared: Any,
    ) -> None:
        check_counts(mask_channels=mask_channels)
        super().__init__(network={"mask_channels": mask_channels, "enhance": enhance}, **shared)
        if self.jitter and masks:
            raise UserError("method.jitter=true crops boxes only; set method.masks=false with it")
        self.wants_masks = masks
        self.score_attention_weight = score_attention_weight
        self.decoder_attention_weight = decoder_attention_weight
        self.focal_weight = focal_weight
        self.dice_weight = dice_weight
        self.mask_loss_on = mask_loss_on

    def network(self, batch: Batch, maps: bool = False) -> Outputs:
        """The forward pass; attention maps are returned with ``maps`` and whenever the training losses need them."""
        maps = maps or (self.training and self.decoder_attention_weight > 0)
        return self.outputs_of(batch, maps, masks=self.wants_masks)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.losses(self.network(batch), batch)

    def targets(self, batch: Batch) -> Targets:
        """What the set criterion compares with."""
        size = batch.boxes.new_full((2,), self.image_size)
        return Targets.from_pixels(batch.boxes, batch.valid, size)

    def attention_targets(self, batch: Batch) -> loss.AttentionTargets:
        """Target maps of both attention losses."""
        masks = batch.masks if self.wants_masks else None
        return loss.attention_targets(batch.boxes, masks, batch.valid, self.image_size, self.grid)

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """All terms, already weighted.

        ``total = loss_dgt + loss_mask + score_attention_loss + decoder_attention_loss``; the attention losses are
        there if any of their weights is above 0. ``decoder.loss_*`` are the terms of the set criterion (suffix ``_i``:
        layer i before the last) and the two mask losses; ``loss_dgt`` is the sum of the former.
        """
        targets = self.targets(batch)
        assignment = self.criterion.match(outputs.logits, outputs.boxes, targets)
        terms = self.criterion(outputs.logits, outputs.boxes, targets, assignment)
        losses = {f"decoder.{name}": value for name, value in name_layers(terms).items()}
        loss_dgt = torch.stack(list(terms.values())).sum()
        zero = loss_dgt.new_zeros(())
        focal = dice = zero
        if outputs.mask_logits is not None:
            if batch.masks is None:
                raise UserError("method.masks=true, but the dataset has no masks; set method.masks=false")
            scored = outputs.mask_logits if self.mask_loss_on == "logits" else outputs.mask_logits.sigmoid()
            target = loss.mask_target(batch.masks, batch.valid, (scored.shape[-2], scored.shape[-1]))
            focal, dice = loss.mask_losses(scored, target, batch.valid.sum())
        focal, dice = self.focal_weight * focal, self.dice_weight * dice
        losses |= {"decoder.loss_mask": focal, "decoder.loss_dice": dice}
        losses |= {"loss_dgt": loss_dgt, "loss_mask": focal + dice}
        total = loss_dgt + focal + dice
        if self.score_attention_weight + self.decoder_attention_weight > 0:
            maps = self.attention_targets(batch)
            on_score, on_decoder = zero, zero
            if outputs.score is not None:
                on_score = self.score_attention_weight * loss.score_attention_loss(outputs.score, maps)
            if outputs.attention is not None:
                on_decoder = loss.decoder_attention_loss(outputs.attention, maps, assignment[-1])
                on_decoder = self.decoder_attention_weight * on_decoder
            losses |= {"score_attention_loss": on_score, "decoder_attention_loss": on_decoder}
            total = total + on_score + on_decoder
        return losses | {"total": total}

    def heads_to_compile(self) -> Iterable[nn.Module]:
        # Not enhancement, decoder and mask head: with the first two compiled a step of 128 took 239 ms on an H200, an
        # eager step of 64 takes 105; and PyTorch 2.11 stops at the compiled backward pass of the head's convolutions.
        return (self.query_generator,)

    def idle(self) -> tuple[str, ...]:
        return () if self.wants_masks else ("mask_head.",)

    def predict(self, batch: Batch, outputs: Sequence[str] | None = None) -> dict[str, list[Prediction]]:
        return self.start_prediction(batch, outputs)()

    def start_prediction(
        self, batch: Batch, outputs: Sequence[str] | None = None
    ) -> Callable[[], dict[str, list[Prediction]]]:
        output = self.network(batch, maps=self.enhance is None)
        size = batch.image.new_full((2,), self.image_size, dtype=torch.float32)
        boxes, scores = detections(output.logits[-1], output.boxes[-1], size)
        heat = self._heat(output, scores).float().cpu()
        boxes, scores, geometry = boxes.cpu(), scores.cpu(), batch.geometry
        runs = None
        if output.mask is not None:
            canvas = self.foreground(output.mask, (self.image_size, self.image_size)) >= 0.5
            whole = resize_to_images(output.mask, [frame.size for frame in geometry], lambda p: p >= 0.5)
            runs = run_lengths([*canvas, *whole])

        def rest() -> dict[str, list[Prediction]]:
            many = self.num_queries > 1
            limit = GREC_SCORE_THRESHOLD if many else None
            predictions = ranked_predictions(boxes, scores, geometry, many, limit)
            for prediction, heatmap in zip(predictions, heat, strict=True):
                prediction.heatmap = heatmap
            if runs is not None:
                encoded = runs.encode()
                for i, prediction in enumerate(predictions):
                    prediction.canvas_mask, prediction.mask = encoded[i], encoded[len(predictions) + i]
            return {"main": predictions}

        return rest

    def _heat(self, output: Outputs, scores: Tensor) -> Tensor:
        """[B, g, g] where the method looks: the relevance, or the best query's attention without enhancement."""
        if output.score is not None:
            return output.score
        assert output.attention is not None
        best = scores.argmax(1).view(-1, 1, 1, 1).expand(-1, 1, self.grid, self.grid)
        return output.attention[-1].gather(1, best)[:, 0]

    @staticmethod
    def foreground(mask: Tensor, size: tuple[int, int]) -> Tensor:
        """Foreground probability [B, 8g, 8g] -> [B, *size]."""
        return F.interpolate(mask[:, None], size, mode="bilinear", align_corners=False)[:, 0]

    def official_names(self) -> list[KeyEntry]:
        depths = (len(self.encoder.layers), len(self.query_generator.layers), len(self.decoder.layers))
        return official_names(*depths, enhance=self.enhance is not None)

    def unread_keys(self) -> tuple[str, ...]:
        return UNUSED
