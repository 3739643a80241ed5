"""The DETR decoder layer of the SimVG family."""

from __future__ import annotations

from torch import Tensor, nn

from vgbench.checkpoints.names import KeyEntry


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
