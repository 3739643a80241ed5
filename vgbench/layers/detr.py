"""The Transformer encoder of DETR (post-norm, position code added to queries and keys in every layer)."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["DetrEncoder", "DetrEncoderLayer"]


class DetrEncoderLayer(nn.Module):
    """``x = LN1(x + MHA(q = k = x + P, v = x))``, ``x = LN2(x + FFN(x))``; parameter names as in DETR.

    Args:
        width: d.
        heads: attention heads.
        ffn: inner width of the feed-forward part (ReLU).
        dropout: on attention weights, both residual branches and inside the FFN.

    Source: Carion et al., ECCV 2020.
    """

    def __init__(self, width: int, heads: int, ffn: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.linear1 = nn.Linear(width, ffn)
        self.linear2 = nn.Linear(ffn, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor, pad: Tensor | None) -> Tensor:
        """x and position [B, N, d], pad [B, N] bool (True = padding) or None -> [B, N, d]."""
        query = x + position
        attended = self.self_attn(query, query, x, key_padding_mask=pad, need_weights=False)[0]
        x = self.norm1(x + self.dropout(attended))
        hidden = self.dropout(self.linear1(x).relu())
        return self.norm2(x + self.dropout(self.linear2(hidden)))


class DetrEncoder(nn.Module):
    """A stack of :class:`DetrEncoderLayer` without a final norm; Xavier-uniform initialisation."""

    def __init__(self, layers: int, width: int, heads: int, ffn: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DetrEncoderLayer(width, heads, ffn, dropout) for _ in range(layers))
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor, position: Tensor, pad: Tensor | None = None) -> Tensor:
        """x and position [B, N, d], pad [B, N] bool (True = padding) or None -> [B, N, d]."""
        for layer in self.layers:
            x = layer(x, position, pad)
        return x
