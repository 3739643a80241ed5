"""SimVG's decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vgbench.methods.beit3.decoder import DecoderLayer


class Decoder(nn.Module):
    """K chained post-norm layers; every layer's output is normalised by one shared LayerNorm, and not fed back."""

    def __init__(self, layers: int, width: int, heads: int, ffn_width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([DecoderLayer(width, heads, ffn_width, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, query: Tensor, keys: Tensor, memory: Tensor, pad: Tensor | None) -> Tensor:
        """query [B, Q, D], keys and memory [B, N, D], pad [B, N] bool or None -> [K, B, Q, D]."""
        t = torch.zeros_like(query)
        hidden = []
        for layer in self.layers:
            t = layer(t, query, keys, memory, pad)
            hidden.append(self.norm(t))
        return torch.stack(hidden)
