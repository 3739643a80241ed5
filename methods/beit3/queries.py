"""Text-guided query generation of SimVG and ALVG."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from vgbench.checkpoints.names import KeyEntry
from vgbench.methods.beit3.decoder import DecoderLayer

TextPooling = Literal["official", "valid"]


def pool_text(text: Tensor, pad: Tensor, how: TextPooling = "official") -> Tensor:
    """One vector per expression.

    Args:
        text: [B, L, D].
        pad: [B, L] bool, True = padding.
        how: "official": what the authors' code computes, the element-wise maximum of the last two positions, or the
            last position alone in a sample without padding (its integer mask is inverted bit by bit and then used as
            an index). "valid": what was meant, the maximum over the tokens that are no padding.

    Returns:
        [B, D].
    """
    if how == "valid":
        return text.masked_fill(pad[..., None], float("-inf")).amax(1)
    last = text[:, -1]
    return torch.where(pad.any(1, keepdim=True), torch.maximum(last, text[:, -2]), last)


class QueryGenerator(nn.Module):
    """Text-guided query generation (SimVG section 3.2): learned queries that have read the expression.

    A post-norm decoder over the text tokens with a zero target and the learned queries as query position; its output
    plus the pooled text plus the learned queries is the query (position) of what follows.

    Args:
        width, heads, ffn_width, layers: sizes.
        queries: Q.
        pooling: see :func:`pool_text`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        ffn_width: int,
        layers: int,
        queries: int,
        pooling: TextPooling = "official",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.query_embed = nn.Parameter(torch.empty(queries, width).normal_())
        # The authors' code starts all attentions as copies of one, and all layers as copies of one.
        first = DecoderLayer(width, heads, ffn_width, dropout)
        first.cross_attn.load_state_dict(first.self_attn.state_dict())
        self.layers = nn.ModuleList([first, *(copy.deepcopy(first) for _ in range(layers - 1))])
        self.norm = nn.LayerNorm(width)

    def forward(self, text: Tensor, pad: Tensor) -> tuple[Tensor, Tensor]:
        """text [B, L, D] and pad [B, L] bool (True = padding) -> queries [B, Q, D] and pooled text [B, D]."""
        embed = self.query_embed.expand(text.shape[0], -1, -1)
        keys = text + truncated_sine_position_1d(text.shape[1], text.shape[2], text.device).to(text.dtype)
        t = torch.zeros_like(embed)
        for layer in self.layers:
            t = layer(t, embed, keys, text, pad)
        pooled = pool_text(text, pad, self.pooling)
        return self.norm(t) + pooled[:, None] + embed, pooled

    @staticmethod
    def keys(layers: int, ours: str = "query_generator", official: str = "head.") -> list[KeyEntry]:
        """Names here and in SimVG's and ALVG's checkpoints."""
        theirs = f"{official}text_guided_query_generation_transformer"
        entries = [KeyEntry(f"{ours}.query_embed", (f"{official}query_embed.weight",))]
        for i in range(layers):
            entries += DecoderLayer.keys(f"{ours}.layers.{i}", f"{theirs}.layers.{i}")
        return entries + [
            KeyEntry(f"{ours}.norm.{kind}", (f"{theirs}.post_norm_layer.{kind}",)) for kind in ("weight", "bias")
        ]


def truncated_sine_position_1d(length: int, channels: int, device: torch.device | str | None = None) -> Tensor:
    """The text code of SimVG and ALVG, whose frequencies are truncated to integers.

    Frequency 0 is 1 and all others become 0, so that the code is ``sin(l), cos(l), 0, 1, 0, 1, ...``.

    Returns:
        [length, channels] float32.
    """
    position = torch.arange(length, dtype=torch.float32, device=device)
    code = torch.zeros(length, channels, device=device)
    code[:, 0] = position.sin()
    code[:, 1] = position.cos()
    code[:, 3::2] = 1.0
    return code
