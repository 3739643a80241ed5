"""BERT's layers as ALBEF uses them: self-attention, cross-attention to image tokens, feed-forward network.

Module names are those of the official checkpoints. B texts, S sources, L text positions, M source tokens, N patches,
D text width.

Attention that lies between the kept cross-attention map A and the matching score is differentiated twice by the AMC
loss; it is computed explicitly, the rest by the fused kernels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgbench.layers.casts import step_weights

BERT_EPS = 1e-12


class _Projections(nn.Module):
    """Query, key and value projections of BERT's attention; keys and values may come from tokens of other width."""

    def __init__(self, width: int, source_width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, width)


class _Residual(nn.Module):
    """Dense layer, dropout, addition to the input, LayerNorm: the end of each of BERT's sublayers."""

    def __init__(self, source_width: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(source_width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=BERT_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, update: Tensor, hidden: Tensor) -> Tensor:
        return self.LayerNorm(hidden + self.dropout(self.dense(update)))


def _for_queries(source: Tensor, queries: int, index: Tensor | None) -> Tensor:
    """The row of [S, ...] for each query row, see :class:`Attention`; only rows of ``index`` are looked up, because
    the gradient of that is sorted."""
    if index is None:
        turns, chosen = queries // len(source), []
    else:
        turns, chosen = (queries - len(index)) // len(source), [source[index]]
    rows = [source] * turns + chosen
    return rows[0] if len(rows) == 1 else torch.cat(rows)


class Attention(nn.Module):
    """BERT's attention sublayer ``LN(h + Wo Attn(h, s))``, self- or cross-attention.

    Args:
        width: width D of the queries.
        heads: heads.
        source_width: width of the keys' and values' tokens.
        dropout: on the probabilities and on the output.
    """

    def __init__(self, width: int, heads: int, source_width: int, dropout: float) -> None:
        super().__init__()
        self.self = _Projections(width, source_width)
        self.output = _Residual(width, width, dropout)
        self.heads = heads
        self.dropout = dropout

    def forward(
        self,
        hidden: Tensor,
        source: Tensor,
        pad: Tensor | None = None,
        index: Tensor | None = None,
        explicit: bool = False,
        cut: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """
        Args:
            hidden: queries [B, L, D].
            source: tokens of the keys and values [S, M, D'].
            pad: [S, M] bool, True = not attended to.
            index: [n] int64, the rows of ``source`` that the last n query rows attend to. The rows before (all of
                them: None) attend to the rows of ``source`` in turn, as often as there are (B - n) / S.
            explicit: softmax in plain operations and float32, which can be differentiated twice.
            cut: detach the probabilities from what they come from (explicit only).

        Returns:
            hidden [B, L, D] and, if ``explicit``, the probabilities before dropout [B, heads, L, M] float32.
        """
        query = self.self.query(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = (_for_queries(layer(source), len(hidden), index) for layer in (self.self.key, self.self.value))
        key, value = (tensor.unflatten(-1, (self.heads, -1)).transpose(1, 2) for tensor in (key, value))
        visible = None if pad is None else ~pad[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        probabilities = None
        if explicit:
            with torch.autocast(hidden.device.type, enabled=False):
                scores = query.float() @ key.float().transpose(-2, -1) / math.sqrt(query.shape[-1])
                if visible is not None:
                    scores = scores.masked_fill(~visible, -10000.0)
                probabilities = scores.softmax(-1)
                if cut:
                    # not a leaf itself: torch's module tracker (FLOP counting) takes no leaf as a module's output
                    probabilities = probabilities.detach().requires_grad_().clone()
                context = F.dropout(probabilities, dropout, self.training) @ value.float()
        else:
            context = F.scaled_dot_product_attention(query, key, value, attn_mask=visible, dropout_p=dropout)
        return self.output(context.transpose(1, 2).flatten(2), hidden), probabilities


class _Intermediate(nn.Module):
    def __init__(self, width: int, ffn: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, ffn)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.gelu(self.dense(hidden))


class Layer(nn.Module):
    """Post-norm BERT layer; a fusion layer has cross-attention to the image between its two sublayers."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float, vision_width: int | None) -> None:
        super().__init__()
        self.attention = Attention(width, heads, width, dropout)
        if vision_width is not None:
            self.crossattention = Attention(width, heads, vision_width, dropout)
        self.intermediate = _Intermediate(width, ffn)
        self.output = _Residual(ffn, width, dropout)

    def feed_forward(self, hidden: Tensor) -> Tensor:
        return self.output(self.intermediate(hidden), hidden)

    def forward(self, hidden: Tensor, pad: Tensor, image: Tensor | None = None, index: Tensor | None = None) -> Tensor:
        """The whole layer: text [B, L, D], padding [B, L], and for a fusion layer the image tokens (and the images of
        the last texts, see :class:`Attention`)."""
        hidden, _ = self.attention(hidden, hidden, pad)
        if image is not None:
            hidden, _ = self.crossattention(hidden, image, index=index)
        return self.feed_forward(hidden)

    def explained(
        self, hidden: Tensor, pad: Tensor, image: Tensor, index: Tensor | None, first: bool, cut: bool
    ) -> tuple[Tensor, Tensor]:
        """A fusion layer that can be differentiated twice from its cross-attention map on.

        Args:
            hidden, pad, image, index: as for the layer itself.
            first: nothing before the map is differentiated twice.
            cut: gradients reach the map, but do not go through it.

        Returns:
            hidden [B, L, D] and the map [B, heads, L, 1 + N] float32 before dropout.
        """
        with step_weights(self):
            hidden, _ = self.attention(hidden, hidden, pad, explicit=not first)
            hidden, probabilities = self.crossattention(hidden, image, index=index, explicit=True, cut=cut)
            assert probabilities is not None
            return self.feed_forward(hidden), probabilities
