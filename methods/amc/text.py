"""ALBEF's text encoder: BERT split into text layers and fusion layers, which also attend to the image.

Module names are those of the official checkpoints. B texts, I images, L text positions, N patches, D text width.

Attention that lies between the kept cross-attention map A and the matching score is differentiated twice by the AMC
loss; it is computed explicitly, the rest by the fused kernels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgbench.methods.amc.vision import INIT_STD

BERT_EPS = 1e-12


@dataclass(frozen=True)
class TextConfig:
    """Sizes of the text encoder.

    Attributes:
        vocab_size: word pieces.
        max_positions: longest text, in ids.
        width: hidden width D.
        layers: all layers.
        heads: attention heads.
        ffn: hidden width of the feed-forward networks.
        fusion_layer: number of text-only layers; the rest are fusion layers.
        vision_width: width of the image tokens.
        pad_id: padding id, whose embedding gets no gradient as an input.
        dropout: everywhere in BERT.
        init_std: of the initial weights (normal).
    """

    vocab_size: int = 30522
    max_positions: int = 512
    width: int = 768
    layers: int = 12
    heads: int = 12
    ffn: int = 3072
    fusion_layer: int = 6
    vision_width: int = 768
    pad_id: int = 0
    dropout: float = 0.1
    init_std: float = INIT_STD


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
            index: [B] int64, the row of ``source`` that each query row attends to; None: S = B, row by row.
            explicit: softmax in plain operations and float32, which can be differentiated twice.
            cut: detach the probabilities from what they come from (explicit only).

        Returns:
            hidden [B, L, D] and, if ``explicit``, the probabilities before dropout [B, heads, L, M] float32.
        """
        query = self.self.query(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = (layer(source) for layer in (self.self.key, self.self.value))
        if index is not None:
            key, value = key[index], value[index]
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
        """The whole layer: text [B, L, D], padding [B, L], and for a fusion layer the image tokens (and the image of
        each text)."""
        hidden, _ = self.attention(hidden, hidden, pad)
        if image is not None:
            hidden, _ = self.crossattention(hidden, image, index=index)
        return self.feed_forward(hidden)


class _Embeddings(nn.Module):
    """Word, position and token-type (always type 0) embeddings, LayerNorm, dropout."""

    def __init__(self, vocab_size: int, max_positions: int, width: int, pad_id: int, dropout: float) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab_size, width, padding_idx=pad_id)
        self.position_embeddings = nn.Embedding(max_positions, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=BERT_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: ids.shape[1]]
        return self.dropout(
            self.LayerNorm(self.word_embeddings(ids) + positions + self.token_type_embeddings.weight[0])
        )


class _Encoder(nn.Module):
    def __init__(self, layers: list[Layer]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)


class _Bert(nn.Module):
    def __init__(self, embeddings: _Embeddings, encoder: _Encoder) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.encoder = encoder


class _Transform(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=BERT_EPS)


class _Predictions(nn.Module):
    """MLM head; its decoder is the word embedding."""

    def __init__(self, width: int, vocab_size: int) -> None:
        super().__init__()
        self.transform = _Transform(width)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, hidden: Tensor, words: Tensor) -> Tensor:
        hidden = self.transform.LayerNorm(F.gelu(self.transform.dense(hidden)))
        return F.linear(hidden, words, self.bias)


class _Heads(nn.Module):
    def __init__(self, predictions: _Predictions) -> None:
        super().__init__()
        self.predictions = predictions


class TextEncoder(nn.Module):
    """BERT whose layers from ``fusion_layer`` on also attend to the image; bidirectional, no pooler."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.fusion_layer = config.fusion_layer
        layers = [
            Layer(
                config.width,
                config.heads,
                config.ffn,
                config.dropout,
                config.vision_width if number >= config.fusion_layer else None,
            )
            for number in range(config.layers)
        ]
        embeddings = _Embeddings(config.vocab_size, config.max_positions, config.width, config.pad_id, config.dropout)
        self.bert = _Bert(embeddings, _Encoder(layers))
        self.cls = _Heads(_Predictions(config.width, config.vocab_size))
        self.apply(partial(self._initialise, std=config.init_std))

    @staticmethod
    def _initialise(module: nn.Module, std: float) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()

    def text(self, ids: Tensor, pad: Tensor) -> Tensor:
        """Embeddings and text layers: ids [B, L], pad [B, L] bool -> [B, L, D]."""
        hidden = self.bert.embeddings(ids)
        layer: Any
        for layer in self.bert.encoder.layer[: self.fusion_layer]:
            hidden = layer(hidden, pad)
        return hidden

    def fuse(
        self,
        hidden: Tensor,
        pad: Tensor,
        image: Tensor,
        index: Tensor | None = None,
        keep: int | None = None,
        cut: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The fusion layers.

        Args:
            hidden: text embeddings [B, L, D].
            pad: [B, L] bool, True = padding.
            image: image tokens [I, 1 + N, vision width].
            index: [B] int64, the image of each text; None: I = B, row by row.
            keep: number of the layer (counted over all layers) whose cross-attention map A is returned, with every
                later operation twice differentiable.
            cut: gradients reach A, but do not go through it.

        Returns:
            hidden [B, L, D] and A [B, heads, L, 1 + N] float32 before dropout, or None.
        """
        explained = None
        for number in range(self.fusion_layer, len(self.bert.encoder.layer)):
            layer: Any = self.bert.encoder.layer[number]
            if keep is None or number < keep:
                hidden = layer(hidden, pad, image, index)
                continue
            hidden, _ = layer.attention(hidden, hidden, pad, explicit=number != keep)
            hidden, probabilities = layer.crossattention(
                hidden, image, index=index, explicit=True, cut=cut and number == keep
            )
            if number == keep:
                explained = probabilities
            hidden = layer.feed_forward(hidden)
        return hidden, explained

    def masked_words(self, ids: Tensor, pad: Tensor, image: Tensor) -> Tensor:
        """MLM logits [B, L, vocabulary] of partly masked ids over the image tokens [B, 1 + N, vision width]."""
        hidden, _ = self.fuse(self.text(ids, pad), pad, image)
        return self.cls.predictions(hidden, self.bert.embeddings.word_embeddings.weight)
