"""ALBEF's image encoder: timm's ViT with tokens of images of any size, and with one attention map to differentiate.

I images, B texts, N patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vgbench.layers.patches import embed_patches
from vgbench.layers.resize import resize_bicubic

INIT_STD = 0.02  # of BERT and ViT, for a width of 768


@dataclass(frozen=True)
class VisionConfig:
    """Sizes of the image encoder.

    Attributes:
        image_size: side of the images that the position table is made for, pixels.
        patch_size: patch side, pixels.
        width: token width.
        depth: blocks.
        heads: attention heads.
        mlp_ratio: hidden width of the MLPs as a multiple of ``width``.
        init_std: of the initial weights, position table and class token.
        position_std: of the initial position table instead (normal). Patches that are not pretrained have a standard
            deviation of a few units, in which positions of 0.02 are lost.
    """

    image_size: int = 256
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    init_std: float = INIT_STD
    position_std: float | None = None


def resize_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position table [1, 1 + g*g, C] -> [1, 1 + h*w, C]: the class entry is kept, the grid resized bicubically.

    ``align_corners=False``, no antialiasing (the published numbers at 384 px rest on it).
    """
    side = math.isqrt(table.shape[1] - 1)
    if (side, side) == tuple(grid):
        return table
    patches = resize_bicubic(table[0, 1:].unflatten(0, (side, side)), grid).flatten(0, 1)
    return torch.cat([table[:, :1], patches.to(table.dtype)[None]], dim=1)


class VisionEncoder(VisionTransformer):
    """Pre-norm ViT (timm's modules) that returns all tokens and takes images of any size divisible by the patch.

    Initial weights, position table and class token are drawn from a truncated normal distribution.
    """

    cls_token: nn.Parameter
    pos_embed: nn.Parameter

    def __init__(self, config: VisionConfig) -> None:
        super().__init__(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            num_classes=0,
            global_pool="",
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
        self.patch_size = config.patch_size
        linear = (module.weight for module in self.modules() if isinstance(module, nn.Linear))
        for parameter in (self.pos_embed, self.cls_token, *linear):
            nn.init.trunc_normal_(parameter, std=config.init_std)
        if config.position_std is not None:
            nn.init.normal_(self.pos_embed, std=config.position_std)

    def grid(self, image: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of images [..., H, W]."""
        return image.shape[-2] // self.patch_size, image.shape[-1] // self.patch_size

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Position embedding [1, 1 + h*w, width] for a (h, w) grid of patches."""
        return resize_positions(self.pos_embed, grid)

    def embed(self, image: Tensor) -> Tensor:
        """[I, 3, H, W] -> class token and patches with their positions [I, 1 + N, width]."""
        patches = embed_patches(image, self.patch_embed.proj)
        grid = (patches.shape[1], patches.shape[2])
        tokens = patches.flatten(1, 2)
        return torch.cat([self.cls_token.expand(len(image), -1, -1), tokens], dim=1) + self.positions(grid)

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        """Normalised images [I, 3, H, W] -> tokens after the final norm [I, 1 + N, width], class token first."""
        tokens = self.embed(image)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def with_attention(self, image: Tensor, index: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, with the attention map of one block as the beginning of the graph.

        Args:
            image: [I, 3, H, W].
            index: [B] int64, the image of each row of the result. Blocks before ``number`` run once per image.
            number: block whose map is wanted, from 0.

        Returns:
            tokens [B, 1 + N, width] and softmax probabilities [B, heads, 1 + N, 1 + N] (float32, requires grad).
        """
        with torch.no_grad():
            tokens = self.embed(image)
            for earlier in self.blocks[:number]:
                tokens = earlier(tokens)
            tokens = tokens[index]
        block: Any = self.blocks[number]
        attention = block.attn
        qkv = attention.qkv(block.norm1(tokens)).unflatten(-1, (3, attention.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).float()
        with torch.autocast(tokens.device.type, enabled=False):
            scores = (query @ key.transpose(-2, -1)) * attention.scale
            probabilities = scores.softmax(-1).detach().requires_grad_()
            context = (probabilities @ value).transpose(1, 2).flatten(2)
        tokens = tokens + attention.proj(context)
        tokens = tokens + block.mlp(block.norm2(tokens))
        for later in self.blocks[number + 1 :]:
            tokens = later(tokens)
        return self.norm(tokens), probabilities
