"""ALBEF's text encoder: BERT split into text layers and fusion layers, which also attend to the image.

Module names are those of the official checkpoints. B texts, I images, L text positions, N patches, D text width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgbench.methods.amc.bert import BERT_EPS, Layer
from vgbench.methods.amc.vision import INIT_STD


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
        self, hidden: Tensor, pad: Tensor, image: Tensor, index: Tensor | None = None, layers: slice = slice(None)
    ) -> Tensor:
        """The fusion layers, or some of them.

        Args:
            hidden: text embeddings [B, L, D], or what earlier fusion layers made of them.
            pad: [B, L] bool, True = padding.
            image: image tokens [I, 1 + N, vision width].
            index: [n] int64, the images of the last n texts; those before are with the images in turn (see
                :class:`Attention`). None: all are.
            layers: of the fusion layers, counted from the first of them.

        Returns:
            [B, L, D].
        """
        layer: Any
        for layer in self.bert.encoder.layer[self.fusion_layer :][layers]:
            hidden = layer(hidden, pad, image, index)
        return hidden

    def explain(
        self, hidden: Tensor, pad: Tensor, image: Tensor, first: int, index: Tensor | None = None, cut: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The fusion layers from ``first`` (counted as for :meth:`fuse`) on, whose map A is twice differentiable.

        Args:
            hidden, pad, image, index: as for :meth:`fuse`.
            first: the layer whose cross-attention map is A; every later operation is twice differentiable.
            cut: gradients reach A, but do not go through it.

        Returns:
            hidden [B, L, D] and A [B, heads, L, 1 + N] float32 before dropout.
        """
        maps = []
        layer: Any
        for number, layer in enumerate(self.bert.encoder.layer[self.fusion_layer + first :]):
            hidden, probabilities = layer.explained(hidden, pad, image, index, number == 0, cut and number == 0)
            maps.append(probabilities)
        return hidden, maps[0]

    def word_logits(self, hidden: Tensor) -> Tensor:
        """MLM logits [B, L, vocabulary] of fused texts [B, L, D]."""
        return self.cls.predictions(hidden, self.bert.embeddings.word_embeddings.weight)
