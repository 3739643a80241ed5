"""ViTDet's plain vision transformer: windowed and global blocks, decomposed relative positions, one feature map.

Source: Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection", ECCV 2022, as implemented in
facebookresearch/detectron2. The output is that of the last block: there is neither a final norm nor a feature pyramid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgbench.layers.depth import branch_scales, drop_path_rates
from vgbench.layers.patches import embed_patches
from vgbench.layers.resize import resize_bicubic

__all__ = ["Projection", "ViTDet", "fit_relative_positions"]

Projection = Callable[..., Tensor]
"""Replaces the fused q/k/v projection: (its linear layer, tokens [B, n, C], the block's tensors) -> [B, n, 3C].

Tokens of one image are together, whatever the block's windows. It must be the same function for all blocks: what
differs comes in the tensors."""


def _static_projection(layer: nn.Linear, tokens: Tensor) -> Tensor:
    return layer(tokens)


def fit_relative_positions(table: Tensor, length: int) -> Tensor:
    """A relative-position table [m, d] for ``length`` distances: linear interpolation along the table if m differs."""
    if table.shape[0] == length:
        return table
    return F.interpolate(table.t()[None].float(), size=length, mode="linear")[0].t().to(table.dtype)


def _filled(size: int) -> int:
    """The next multiple of 8: matrix products in half precision are several times faster on such widths."""
    return size + -size % 8


def _relative_rows(table: Tensor, size: int, keys: int) -> Tensor:
    """Rows of the table by (query position, key position): [2n-1, d] -> [n, keys, d], row ``q - k + n - 1``; keys
    beyond the n that there are have zeros."""
    fitted = fit_relative_positions(table, 2 * size - 1)
    # windows over the reversed table instead of look-ups by number, whose gradient is sorted
    rows = fitted.flip(0).unfold(0, size, 1).flip(0).transpose(1, 2)
    return F.pad(rows, (0, 0, 0, keys - size))


def _key_positions(grid: tuple[int, int], filled: tuple[int, int], like: Tensor) -> Tensor:
    """One-hot row and column of every key of a grid, each filled up with zeros: [h * w, sum of ``filled``]."""
    (height, width), (rows, columns) = grid, filled
    row = torch.eye(height, rows, dtype=like.dtype, device=like.device).repeat_interleave(width, 0)
    column = torch.eye(width, columns, dtype=like.dtype, device=like.device).repeat(height, 1)
    return torch.cat([row, column], dim=1)


class Attention(nn.Module):
    """Multi-head self-attention over a grid with decomposed relative positions.

    The logits are ``q k^T / sqrt(d) + q Rh[yq - yk] + q Rw[xq - xk]`` with the tables shared by the heads. The two
    position terms are written as further components of q and k (the scores per key row and column against a one-hot
    code of the key's row and column), so that no [n, n] bias is ever materialised. The values get as many zero
    components, because the flash kernels take one width for q, k and v.
    """

    def __init__(self, dim: int, heads: int, grid: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"width {dim} is not a multiple of {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * grid - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * grid - 1, dim // heads))

    def forward(self, qkv: Tensor) -> Tensor:
        """Attend within each grid.

        Args:
            qkv: [G, h, w, 3C], the projected tokens of G independent grids (windows or whole images).

        Returns:
            [G, h, w, C].
        """
        grids, height, width, _ = qkv.shape
        # parted before heads come first: their gradients are then joined in the order of the projection, in one copy
        q, k, v = (x.transpose(1, 2) for x in qkv.view(grids, height * width, 3, self.heads, -1).unbind(2))
        dim = q.shape[-1]
        on_grid = q.unflatten(2, (height, width))
        rows, columns = _filled(height), _filled(width) + -dim % 8  # fused kernels want multiples of 8
        row_scores = torch.einsum("gnyxd,ykd->gnyxk", on_grid, _relative_rows(self.rel_pos_h, height, rows))
        column_scores = torch.einsum("gnyxd,xkd->gnyxk", on_grid, _relative_rows(self.rel_pos_w, width, columns))
        scores = torch.cat([row_scores, column_scores], dim=-1).flatten(2, 3)
        q = torch.cat([q * dim**-0.5, scores.to(q.dtype)], dim=-1)
        places = _key_positions((height, width), (rows, columns), k)
        k = torch.cat([k, places.expand(grids, self.heads, -1, -1)], dim=-1)
        out = F.scaled_dot_product_attention(q, k, F.pad(v, (0, rows + columns)), scale=1.0)[..., :dim]
        return self.proj(out.transpose(1, 2).reshape(grids, height, width, -1))


def _to_windows(x: Tensor, size: int) -> tuple[Tensor, tuple[int, int]]:
    """[B, h, w, C] -> windows [B, windows, size, size, C] in row-major order and the padded (height, width).

    Zeros fill up the right and the bottom; they take part in the attention like any other token.
    """
    batch, height, width, channels = x.shape
    if height % size or width % size:  # filling up by nothing would be a copy
        x = F.pad(x, (0, 0, 0, -width % size, 0, -height % size))
    rows, columns = x.shape[1] // size, x.shape[2] // size
    x = x.view(batch, rows, size, columns, size, channels).transpose(2, 3)
    return x.reshape(batch, rows * columns, size, size, channels), (rows * size, columns * size)


def _from_windows(windows: Tensor, padded: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Inverse of :func:`_to_windows`: [B, windows, s, s, C] -> [B, *size, C]."""
    batch, _, side, _, channels = windows.shape
    rows, columns = padded[0] // side, padded[1] // side
    x = windows.view(batch, rows, columns, side, side, channels).transpose(2, 3)
    return x.reshape(batch, *padded, channels)[:, : size[0], : size[1]]


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block; ``window`` 0 attends over the whole image."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, grid: int, window: int, norm_eps: float) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, heads, window or grid)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(
        self,
        x: Tensor,
        project: Projection = _static_projection,
        adapters: Sequence[Tensor] = (),
        scales: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            x: [B, h, w, C].
            project: maps tokens [B, n, C] to q, k and v [B, n, 3C].
            adapters: the block's tensors for ``project``.
            scales: [2, B, 1, 1], factors of the two residual branches of each sample; None: 1.

        Returns:
            [B, h, w, C].
        """
        height, width = x.shape[1:3]
        normed = self.norm1(x)
        padded = (height, width)
        grids = normed[:, None]
        if self.window:
            grids, padded = _to_windows(normed, self.window)
        qkv = project(self.attn.qkv, grids.flatten(1, 3), *adapters).view(-1, *grids.shape[2:4], 3 * x.shape[-1])
        attended = self.attn(qkv).view_as(grids)
        update = _from_windows(attended, padded, (height, width)) if self.window else attended[:, 0]
        if scales is None:
            x = x + update
            return x + self.mlp(self.norm2(x))
        first, second = scales[..., None].unbind()
        x = x + update * first
        return x + self.mlp(self.norm2(x)) * second


class PatchEmbed(nn.Module):
    """Image [B, 3, H, W] -> patch embeddings [B, H/p, W/p, C]."""

    def __init__(self, patch_size: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, stride=patch_size)

    def forward(self, image: Tensor) -> Tensor:
        return embed_patches(image, self.proj)


class ViTDet(nn.Module):
    """Plain ViT backbone of ViTDet.

    Args:
        image_size: side of the (square) network input in pixels; sets the size of the global blocks' position tables.
        patch_size: pixels per token side.
        dim: width C.
        depth: number of blocks.
        heads: attention heads.
        mlp_ratio: hidden width of the MLPs over C.
        window_size: side of the windows in tokens.
        global_blocks: indices of the blocks that attend over the whole image; the others are windowed.
        pretrain_image_size: image size that the absolute position table was trained at; the table is resized
            (bicubic) to the token grid in every forward pass, the table itself is the parameter.
        drop_path: stochastic-depth rate of the last block; it grows linearly from 0.
        norm_eps: epsilon of the LayerNorms (Detectron2: 1e-6).
    """

    def __init__(
        self,
        image_size: int = 448,
        patch_size: int = 16,
        dim: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        window_size: int = 14,
        global_blocks: Sequence[int] = (2, 5, 8, 11),
        pretrain_image_size: int = 224,
        drop_path: float = 0.1,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if image_size % patch_size or pretrain_image_size % patch_size:
            raise ValueError(f"image sizes {image_size} and {pretrain_image_size} must be multiples of {patch_size}")
        if any(not 0 <= index < depth for index in global_blocks):
            raise ValueError(f"global blocks {list(global_blocks)} are not all among the {depth} blocks")
        self.patch_size = patch_size
        self.patch_embed = PatchEmbed(patch_size, dim)
        # Index 0 belongs to the class token of the pretraining, which detection backbones do not use.
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (pretrain_image_size // patch_size) ** 2, dim))
        self.drop_path = drop_path
        self.keep: Tensor  # [depth], probability that a residual branch is kept in training
        self.register_buffer("keep", 1 - torch.tensor(drop_path_rates(drop_path, depth)), persistent=False)
        self.blocks = nn.ModuleList(
            Block(
                dim,
                heads,
                mlp_ratio,
                grid=image_size // patch_size,
                window=0 if index in global_blocks else window_size,
                norm_eps=norm_eps,
            )
            for index in range(depth)
        )
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def positions(self, height: int, width: int) -> Tensor:
        """Absolute position embedding [1, height, width, C] for a token grid, resized if it is another grid."""
        table = self.pos_embed[:, 1:]
        side = round(table.shape[1] ** 0.5)
        table = table.unflatten(1, (side, side))
        if (height, width) == (side, side):
            return table
        return resize_bicubic(table[0], (height, width))[None]

    def forward(
        self,
        image: Tensor,
        project: Projection = _static_projection,
        adapters: Sequence[Sequence[Tensor]] | None = None,
    ) -> Tensor:
        """Features of a batch of images.

        Args:
            image: [B, 3, H, W] normalised; H and W are multiples of the patch size.
            project: computes q, k and v of every block; by default the block's own linear layer.
            adapters: tensors for ``project``, a sequence per block.

        Returns:
            [B, C, H / patch, W / patch].
        """
        x = self.patch_embed(image)
        x = x + self.positions(*x.shape[1:3]).to(x.dtype)
        scales: Any = [None] * len(self.blocks)
        if self.training and self.drop_path:
            scales = branch_scales(self.keep, 2, len(image)).unbind()
        for block, tensors, scale in zip(self.blocks, adapters or [()] * len(self.blocks), scales, strict=True):
            x = block(x, project, tensors, scale)
        return x.permute(0, 3, 1, 2)
