"""Post-norm DETR decoder layers and the text-guided query generator shared by SimVG and ALVG."""

from __future__ import annotations

import copy
import itertools
from typing import Literal

import torch
from torch import Tensor, nn

from vgbench.checkpoints.names import KeyEntry
from vgbench.layers.position import truncated_sine_position_1d

__all__ = ["MLP", "DecoderLayer", "DecoderParts", "QueryGenerator", "TextPooling", "pool_text"]

TextPooling = Literal["official", "valid"]


class MLP(nn.Module):
    """Linear layers with ReLU between them, none after the last."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(sizes)])

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = layer(x) if i == len(self.layers) - 1 else layer(x).relu()
        return x


class DecoderParts(nn.Module):
    """The modules of a Transformer decoder layer; how they are connected is up to the subclass."""

    def __init__(self, width: int, heads: int, ffn_width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.cross_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.linear1 = nn.Linear(width, ffn_width)
        self.linear2 = nn.Linear(ffn_width, width)
        self.norm_self = nn.LayerNorm(width)
        self.norm_cross = nn.LayerNorm(width)
        self.norm_ffn = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)


class DecoderLayer(DecoderParts):
    """Post-norm Transformer decoder layer (DETR; detrex's implementation).

    ``t = LN(t + SelfAttn(t + qp, t + qp, t)); t = LN(t + CrossAttn(t + qp, m + mp, m)); t = LN(t + FFN(t))``.
    """

    def forward(
        self, t: Tensor, query_position: Tensor, keys: Tensor, values: Tensor, key_pad: Tensor | None = None
    ) -> Tensor:
        """One layer.

        Args:
            t: [B, Q, D].
            query_position: [B, Q, D], added to queries and to the keys of the self-attention.
            keys: [B, n, D], memory with its position code.
            values: [B, n, D], memory without.
            key_pad: [B, n] bool, True = padding.

        Returns:
            [B, Q, D].
        """
        q = t + query_position
        t = self.norm_self(t + self.self_attn(q, q, t, need_weights=False)[0])
        cross = self.cross_attn(t + query_position, keys, values, key_padding_mask=key_pad, need_weights=False)[0]
        t = self.norm_cross(t + cross)
        return self.norm_ffn(t + self.dropout(self.linear2(self.dropout(self.linear1(t).relu()))))

    @staticmethod
    def keys(ours: str, official: str) -> list[KeyEntry]:
        """Names of one layer: under ``ours`` here, under ``official`` in detrex's layout."""
        names = {
            "self_attn": "attentions.0.attn",
            "cross_attn": "attentions.1.attn",
            "linear1": "ffns.0.layers.0.0",
            "linear2": "ffns.0.layers.1",
            "norm_self": "norms.0",
            "norm_cross": "norms.1",
            "norm_ffn": "norms.2",
        }
        kinds = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
        return [
            KeyEntry(f"{ours}.{our}.{kind}", (f"{official}.{their}.{kind}",))
            for our, their in names.items()
            for kind in (kinds if our.endswith("attn") else ("weight", "bias"))
        ]


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
