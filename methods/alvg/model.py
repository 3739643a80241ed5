"""The parts of ALVG's head (B batch, N = g * g grid cells, E head width, Q queries, K decoder layers)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgbench.methods.beit3.decoder import DecoderParts


class ImageEnhancement(nn.Module):
    """ImgEnhance: weight every image token by its standardised cosine relevance to the pooled text."""

    def __init__(self, width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.image_proj = nn.Linear(width, width)
        self.text_proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """image [B, N, E] with its position code, text [B, E] -> memory [B, N, E] and score [B, N] in (0, 2).

        The score is ``2 sigmoid(z)``, z the cosine standardised over the N tokens of a sample (unbiased deviation).
        """
        v = self.dropout(self.image_proj(image)).float()
        w = self.dropout(self.text_proj(text)).float()
        cosine = (F.normalize(v, dim=-1, eps=1e-12) * F.normalize(w, dim=-1, eps=1e-12)[:, None]).sum(-1)
        variance, mean = torch.var_mean(cosine, dim=-1, keepdim=True)
        # The tiny term only matters where all tokens are equally relevant, which would be 0 / 0.
        score = 2 * ((cosine - mean) * (variance + 1e-20).rsqrt()).sigmoid()
        return score[..., None] * v, score


class ParallelLayer(DecoderParts):
    """One decoder layer; its target is zero and its cross-attention residual contains the query position."""

    def forward(self, query: Tensor, keys: Tensor, memory: Tensor, maps: bool) -> tuple[Tensor, Tensor | None]:
        zero = torch.zeros_like(query)
        y = self.norm_self(self.dropout(self.self_attn(query, query, zero, need_weights=False)[0]))
        s = y + query
        a, attention = self.cross_attn(s, keys, memory, need_weights=maps)
        x = self.norm_cross(s + self.dropout(a))
        ffn = self.linear2(self.dropout(self.linear1(x).relu()))
        return self.norm_ffn(x + self.dropout(ffn)), attention


class ParallelDecoder(nn.Module):
    """K layers side by side: every layer starts from the same zero target, none reads another's output."""

    def __init__(self, layers: int, width: int, heads: int, ffn_width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.layers = nn.ModuleList([ParallelLayer(width, heads, ffn_width, dropout) for _ in range(layers)])

    def forward(self, query: Tensor, keys: Tensor, memory: Tensor, maps: bool) -> tuple[Tensor, Tensor | None]:
        """Decode.

        Args:
            query: [B, Q, E], the query position.
            keys: [B, N, E], memory with position code.
            memory: [B, N, E].
            maps: return the attention maps too.

        Returns:
            Hidden states [K, B, Q, E], and the cross-attention averaged over heads [K, B, Q, N] (in training after
            its dropout, as the attention loss wants it) or None.
        """
        hidden, attention = zip(*(layer(query, keys, memory, maps) for layer in self.layers), strict=True)
        return torch.stack(hidden), torch.stack(attention) if maps else None


class MaskHead(nn.Module):
    """Convolutions that bring the grid to 8 times its side: one foreground map per expression."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        a, b, c = channels, channels // 2, channels // 4
        self.refine = nn.Conv2d(width, a, 3, padding=1, bias=False)
        self.refine_norm = nn.BatchNorm2d(a)
        self.up1 = nn.ConvTranspose2d(a, b, 4, 2, 1)
        self.norm1 = nn.BatchNorm2d(b)
        self.up2 = nn.ConvTranspose2d(b, c, 4, 2, 1)
        self.norm2 = nn.BatchNorm2d(c)
        self.up3 = nn.ConvTranspose2d(c, 1, 4, 2, 1)
        nn.init.kaiming_uniform_(self.refine.weight, a=1)

    def forward(self, features: Tensor) -> Tensor:
        """features [B, E, g, g] -> logits of the foreground [B, 8g, 8g], float32."""
        x = self.refine_norm(self.refine(features)).relu()
        x = self.norm1(self.up1(x)).relu()
        x = self.norm2(self.up2(x)).relu()
        return self.up3(x)[:, 0].float()
