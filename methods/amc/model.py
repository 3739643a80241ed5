"""ALBEF: image encoder, text and fusion encoder, their momentum copies, and the queues of features.

Module names are those of the official checkpoints (salesforce/ALBEF, uvavision/AMC-grounding), so that a state dict
of theirs is a state dict of :class:`ALBEF`. Notation: B texts, I images, L text positions, N patches, D text width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgbench.core.errors import UserError
from vgbench.methods.amc.text import TextConfig, TextEncoder
from vgbench.methods.amc.vision import VisionConfig, VisionEncoder

TEMPERATURE_RANGE = (0.001, 0.5)
MOMENTUM_MODULES = ("visual_encoder", "vision_proj", "text_encoder", "text_proj")


class ALBEF(nn.Module):
    """The whole vision-language model, momentum copies and queues included.

    Args:
        vision, text: sizes of the encoders.
        embed_dim: width E of the contrastive features.
        queue_size: K, features kept of past batches.
    """

    visual_encoder_m: VisionEncoder
    vision_proj_m: nn.Linear
    text_encoder_m: TextEncoder
    text_proj_m: nn.Linear
    image_queue: Tensor
    text_queue: Tensor
    queue_ptr_img: Tensor
    queue_ptr_txt: Tensor

    def __init__(self, vision: VisionConfig, text: TextConfig, embed_dim: int, queue_size: int) -> None:
        super().__init__()
        self.visual_encoder = VisionEncoder(vision)
        self.text_encoder = TextEncoder(text)
        self.vision_proj = nn.Linear(vision.width, embed_dim)
        self.text_proj = nn.Linear(text.width, embed_dim)
        self.itm_head = nn.Linear(text.width, 2)
        self.temp = nn.Parameter(torch.tensor(0.07))
        for name in MOMENTUM_MODULES:
            setattr(self, f"{name}_m", copy.deepcopy(getattr(self, name)).requires_grad_(False))
        for name in ("image_queue", "text_queue"):
            self.register_buffer(name, F.normalize(torch.randn(embed_dim, queue_size), dim=0))
        for name in ("queue_ptr_img", "queue_ptr_txt"):
            self.register_buffer(name, torch.zeros(1, dtype=torch.int64))

    def image_feature(self, tokens: Tensor, momentum: bool = False) -> Tensor:
        """Image tokens [B, 1 + N, width] -> unit contrastive features [B, E] float32."""
        return _unit((self.vision_proj_m if momentum else self.vision_proj)(tokens[:, 0]))

    def text_feature(self, hidden: Tensor, momentum: bool = False) -> Tensor:
        """Text embeddings [B, L, D] -> unit contrastive features [B, E] float32."""
        return _unit((self.text_proj_m if momentum else self.text_proj)(hidden[:, 0]))

    def match(self, hidden: Tensor) -> Tensor:
        """Fused text [B, L, D] -> matching logits [B, 2] float32, class 1 = match."""
        return self.itm_head(hidden[:, 0]).float()

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        self.temp.clamp_(*TEMPERATURE_RANGE)

    def momentum_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the four momentum modules."""
        for name in MOMENTUM_MODULES:
            yield from getattr(self, f"{name}_m").parameters()

    @cached_property
    def momentum_pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """Momentum parameters and, in the same order, the parameters of the four copied modules: lists made once."""
        averages: list[Tensor] = list(self.momentum_parameters())
        values: list[Tensor] = [value for name in MOMENTUM_MODULES for value in getattr(self, name).parameters()]
        return averages, values

    @torch.compiler.disable  # one fused kernel over all parameters as it is
    @torch.no_grad()
    def update_momentum(self, momentum: float) -> None:
        """``theta_m <- momentum * theta_m + (1 - momentum) * theta``."""
        averages, values = self.momentum_pairs
        torch._foreach_mul_(averages, momentum)
        torch._foreach_add_(averages, values, alpha=1.0 - momentum)

    @torch.compiler.disable
    @torch.no_grad()
    def enqueue(self, image_features: Tensor, text_features: Tensor) -> None:
        """Write the momentum features [B, E] of all processes, in rank order, at the pointers, wrapping around.

        Raises:
            UserError: if the batches of all processes together are larger than the queue.
        """
        features = _gather(torch.stack([image_features, text_features], dim=1))
        count, size = len(features), self.image_queue.shape[1]
        if count > size:
            raise UserError(f"method.queue_size={size} is smaller than the batch of all processes ({count}); raise it")
        offsets = torch.arange(count, device=features.device)
        for number, (queue, pointer) in enumerate(
            ((self.image_queue, self.queue_ptr_img), (self.text_queue, self.queue_ptr_txt))
        ):
            queue.index_copy_(1, (pointer + offsets) % size, features[:, number].T.to(queue.dtype))
            pointer.add_(count).remainder_(size)


def _unit(feature: Tensor) -> Tensor:
    return F.normalize(feature.float(), dim=-1, eps=1e-12)


def _gather(features: Tensor) -> Tensor:
    """[B, ...] of every process, concatenated in rank order; every process must have the same B."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return features
    parts = [torch.empty_like(features) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, features.contiguous())
    return torch.cat(parts)
