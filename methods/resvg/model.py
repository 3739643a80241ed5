"""The network of ResVG: VLTVG plus a semantic prior that starts the target query.

Symbols: B batch, h x w feature grid, N = h * w cells, T text tokens, d width, S decoder stages.

Source: Zheng et al., "ResVG: Enhancing Relation and Semantic Understanding in Multiple Instances for Visual
Grounding", ACM MM 2024; the network without the prior: Yang et al., VLTVG, CVPR 2022.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgbench.layers.bert import Bert
from vgbench.layers.detr import DetrEncoder
from vgbench.layers.gather import gather_last
from vgbench.layers.mlp import MLP
from vgbench.layers.position import sine_position_2d
from vgbench.layers.resnet import ResNet

__all__ = ["Output", "ResVGNetwork"]


@dataclass
class Output:
    """What the network computes.

    Attributes:
        boxes: [S, B, 4] cxcywh in [0, 1] of the canvas, one per decoder stage; the last is the prediction.
        score: [B, h, w] verification score s, how well each cell fits the text.
        features: [B, C, h, w] of the ResNet.
        feature_pad: [B, h, w] bool, or None without a mask.
        memory: [B, N, d] image tokens M after the DETR encoder.
        words: [B, T, d] text tokens W.
        discriminative: [B, N, 2 d], M and the verified features F beside each other.
        queries: [S, B, 1, d] target query after each stage, normalised.
        prior: [B, d] projected prior z, or None for a network without one.
        relation_attention: [B, heads, N, N] of the context encoder, only on request.
        image_attention: [B, 1, N] of the last stage, mean over heads, only on request.
    """

    boxes: Tensor
    score: Tensor
    features: Tensor
    feature_pad: Tensor | None
    memory: Tensor
    words: Tensor
    discriminative: Tensor
    queries: Tensor
    prior: Tensor | None
    relation_attention: Tensor | None = None
    image_attention: Tensor | None = None


class RelativeAttention(nn.Module):
    """Self-attention with relative positions: the logit of query cell i and key cell j is

    ``q_i . (k_j + Wk_y pos_y[Y_i - Y_j] + Wk_x pos_x[X_i - X_j]) / sqrt(d_head)``,

    where Wk_y and Wk_x are the two halves of the key projection's input columns (its bias is left out there) and
    Y, X count the valid cells. The tables are a fixed sine code of the offsets -range..range.
    """

    pos_y: Tensor
    pos_x: Tensor

    def __init__(self, width: int, heads: int, dropout: float, max_offset: int) -> None:
        super().__init__()
        self.heads, self.dropout, self.max_offset = heads, dropout, max_offset
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.zeros_(self.out_proj.bias)
        table = _offset_table(max_offset, width // 2)
        self.register_buffer("pos_y", table)
        self.register_buffer("pos_x", table.clone())

    def _split(self, x: Tensor) -> Tensor:
        """[..., n, d] -> [..., heads, n, d / heads]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def forward(self, x: Tensor, value: Tensor, rows: Tensor, columns: Tensor, pad: Tensor | None) -> Tensor:
        """
        Args:
            x: [B, N, d], queries and keys.
            value: [B, N, d].
            rows, columns: [1 or B, N] int64, Y and X of each cell.
            pad: [B, N] bool, True = padding, or None.

        Returns:
            [B, N, d].
        """
        query, key, content = self._project(x, value)
        bias = self._bias(query, rows, columns, pad)
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(query, key, content, attn_mask=bias.to(query.dtype), dropout_p=dropout)
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, value: Tensor, rows: Tensor, columns: Tensor, pad: Tensor | None) -> Tensor:
        """The attention weights of :meth:`forward`, [B, heads, N, N]."""
        query, key, _ = self._project(x, value)
        logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        return (logits + self._bias(query, rows, columns, pad)).softmax(-1)

    def _project(self, x: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        return (
            self._split(F.linear(x, weights[0], biases[0])),
            self._split(F.linear(x, weights[1], biases[1])),
            self._split(F.linear(value, weights[2], biases[2])),
        )

    def _bias(self, query: Tensor, rows: Tensor, columns: Tensor, pad: Tensor | None) -> Tensor:
        """The relative part of the logits [B, heads, N, N], -inf on padding keys."""
        key_weight = self.in_proj_weight.chunk(3)[1]
        bias = query.new_zeros(())
        tables = zip((self.pos_y, self.pos_x), key_weight.chunk(2, dim=1), (rows, columns), strict=True)
        for table, weight, place in tables:
            codes = self._split(F.linear(table, weight))  # [heads, 2 range + 1, d / heads]
            per_offset = query @ codes.transpose(-1, -2) / math.sqrt(query.shape[-1])
            index = place[:, None, :, None] - place[:, None, None, :] + self.max_offset
            bias = bias + gather_last(per_offset, index)
        return bias if pad is None else bias.masked_fill(pad[:, None, None, :], -torch.inf)


def _offset_table(max_offset: int, channels: int) -> Tensor:
    """Sine code of the offsets -max_offset..max_offset, [2 max_offset + 1, channels]."""
    index = torch.arange(channels)
    wavelength = 10000.0 ** (2 * torch.div(index, 2, rounding_mode="floor").float() / channels)
    offset = torch.arange(-max_offset, max_offset + 1).float() * (2 * math.pi / (max_offset + 1e-6))
    angle = offset[:, None] / wavelength
    return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], dim=-1).flatten(1)


class DiscriminativeFeatures(nn.Module):
    """Visual-linguistic verification and language-guided context: which cells fit the text.

    Verification: each cell gathers its words, F_t = MHA(M, W, W), and the cosine c of both sides' projections gives
    ``s = a exp(-(1 - c)^2 / (2 sigma^2))``. Context: with C = MHA(M, W, W), relative self-attention over M + C gives
    G. The verified features are ``F = (LN(M) + LN(G)) s``.

    Source: VLTVG, sections 3.2 and 3.3.
    """

    def __init__(self, width: int, heads: int, dropout: float, max_offset: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0]))
        self.sigma = nn.Parameter(torch.tensor([0.5]))
        self.verify_attn = _attention(width, heads, dropout)
        self.text_proj = nn.Linear(width, width)
        self.image_proj = nn.Linear(width, width)
        self.context_attn = _attention(width, heads, dropout)
        self.relation_attn = RelativeAttention(width, heads, dropout, max_offset)
        self.norm_image = nn.LayerNorm(width)
        self.norm_context = nn.LayerNorm(width)

    def forward(
        self, memory: Tensor, words: Tensor, word_pad: Tensor, places: tuple[Tensor, Tensor], pad: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """memory M [B, N, d], words W [B, T, d] -> F [B, N, d], s [B, N], and M + C [B, N, d]."""
        gathered = self.verify_attn(memory, words, words, key_padding_mask=word_pad, need_weights=False)[0]
        image = F.normalize(self.image_proj(memory).float(), dim=-1)
        text = F.normalize(self.text_proj(gathered).float(), dim=-1)
        cosine = (image * text).sum(-1)
        score = self.scale * torch.exp(-((1 - cosine) ** 2) / (2 * self.sigma**2))
        context = self.context_attn(memory, words, words, key_padding_mask=word_pad, need_weights=False)[0]
        guided = memory + context
        related = self.relation_attn(guided, memory, *places, pad)
        return (self.norm_image(memory) + self.norm_context(related)) * score[..., None], score, guided


class DecoderStage(nn.Module):
    """One stage: the target query asks the words what to look for, then the image where it is.

    ``u = LN0(MHA(t + p_v, W, W))`` (no residual), ``g = MHA(u + p_t, F + P, M)``, ``t = LN1(t + g)``,
    ``t = LN2(t + FFN(t))``.
    """

    def __init__(self, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.word_attn = _attention(width, heads, dropout)
        self.image_attn = _attention(width, heads, dropout)
        self.ffn = _mlp(width, ffn, width, 0.0)
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(
        self,
        target: Tensor,
        words: Tensor,
        word_pad: Tensor,
        keys: Tensor,
        values: Tensor,
        pad: Tensor | None,
        embeddings: tuple[Tensor, Tensor],
        attention: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """target t [B, 1, d], keys F + P and values M [B, N, d] -> t [B, 1, d], image attention [B, 1, N] or None."""
        vis_query, text_query = embeddings
        word_context = self.word_attn(target + vis_query, words, words, key_padding_mask=word_pad, need_weights=False)[
            0
        ]
        word_context = self.norm[0](word_context)
        seen, weights = self.image_attn(
            word_context + text_query, keys, values, key_padding_mask=pad, need_weights=attention
        )
        target = self.norm[1](target + seen)
        return self.norm[2](target + self.ffn(target)), weights


def _attention(width: int, heads: int, dropout: float) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)


def _mlp(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs))


class Decoder(nn.Module):
    """The cross-modal decoder: S stages with weights of their own and one shared output norm.

    The target query starts at the projected prior z (0 without one); the two query embeddings act as its position.
    """

    def __init__(self, stages: int, width: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.stages = nn.ModuleList(DecoderStage(width, heads, ffn, dropout) for _ in range(stages))
        self.norm = nn.LayerNorm(width)
        self.vis_query = nn.Parameter(torch.empty(1, width))
        self.text_query = nn.Parameter(torch.empty(1, width))

    def forward(
        self,
        start: Tensor,
        words: Tensor,
        word_pad: Tensor,
        keys: Tensor,
        values: Tensor,
        pad: Tensor | None,
        attention: bool,
    ) -> tuple[Tensor, Tensor | None]:
        """start [B, d] -> normalised query of every stage [S, B, 1, d], the last image attention [B, 1, N] or None."""
        target, outputs, weights = start[:, None], [], None
        for stage in self.stages:
            target, weights = stage(
                target, words, word_pad, keys, values, pad, (self.vis_query, self.text_query), attention
            )
            outputs.append(self.norm(target))
        return torch.stack(outputs), weights


class ResVGNetwork(nn.Module):
    """Image, tokens and prior -> one box per decoder stage.

    Args:
        backbone: arguments of :class:`~vgbench.layers.resnet.ResNet` (default: ResNet-50 as in DETR).
        bert: arguments of :class:`~vgbench.layers.bert.Bert` (default: bert-base-uncased).
        width: d.
        heads: attention heads everywhere but in BERT.
        encoder_layers, encoder_ffn: DETR encoder.
        stages, decoder_ffn: cross-modal decoder.
        averaged_layers: the text feature is the mean of BERT's last so many layers.
        prior_dim: length of the prior vector; None: no prior branch (this is VLTVG).
        dropout: attention everywhere, encoder residuals and FFN, prior MLP. The decoder stages' own is 0.
        max_offset: the relative-position tables reach this far; the feature grid must not be larger.
        image_size: the tables reach as far as the grid of such an image at least; None: as far as they are said to.
        position_in_values: add the position code to the encoder's input too, so that M itself says where a cell is.
            Officially it is in queries and keys alone, and M knows places from what the deep pretrained backbone
            makes of the zeros around the image; a small one that is trained from scratch does not.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any] | None = None,
        bert: Mapping[str, Any] | None = None,
        width: int = 256,
        heads: int = 8,
        encoder_layers: int = 6,
        encoder_ffn: int = 2048,
        stages: int = 6,
        decoder_ffn: int = 2048,
        averaged_layers: int = 4,
        prior_dim: int | None = 512,
        dropout: float = 0.1,
        max_offset: int = 20,
        position_in_values: bool = False,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        self.backbone = ResNet(**dict(backbone or {}))
        max_offset = max(max_offset, 0 if image_size is None else self.backbone.grid(image_size))
        self.averaged_layers, self.prior_dim, self.max_offset = averaged_layers, prior_dim, max_offset
        self.position_in_values = position_in_values
        self.input_proj = nn.Conv2d(self.backbone.out_channels, width, 1)
        self.encoder = DetrEncoder(encoder_layers, width, heads, encoder_ffn, dropout)
        self.bert = Bert(**dict(bert or {}))
        self.bert_proj = nn.Linear(self.bert.hidden_size, width)
        self.discriminative = DiscriminativeFeatures(width, heads, dropout, max_offset)
        self.decoder = Decoder(stages, width, heads, decoder_ffn, dropout)
        self.prior_mlp = None if prior_dim is None else _mlp(prior_dim, prior_dim, width, dropout)
        self.box_head = MLP([width, width, width, 4])
        for module in (self.discriminative, self.decoder, self.prior_mlp):
            for parameter in module.parameters() if module is not None else ():
                if parameter.ndim > 1:
                    nn.init.xavier_uniform_(parameter)

    def forward(
        self,
        image: Tensor,
        text_ids: Tensor,
        text_pad: Tensor,
        prior: Tensor | None = None,
        image_pad: Tensor | None = None,
        attention: bool = False,
    ) -> Output:
        """
        Args:
            image: [B, 3, H, W] normalised.
            text_ids: [B, T] int64.
            text_pad: [B, T] bool, True = padding.
            prior: [B, prior_dim] semantic prior; None: zeros, the official network without a prior (its biases remain).
            image_pad: [B, H, W] bool, True = padding; None: padding takes part like any other cell (official).
            attention: also return attention weights.
        """
        features = self.backbone(image)
        size = features.shape[-2:]
        if max(size) > self.max_offset:
            raise ValueError(
                f"feature grid {tuple(size)} exceeds the relative-position tables ({self.max_offset} cells)"
            )
        feature_pad = None if image_pad is None else F.interpolate(image_pad[:, None].float(), size=size)[:, 0].bool()
        valid = torch.ones(1, *size, dtype=torch.bool, device=image.device) if feature_pad is None else ~feature_pad
        pad = None if feature_pad is None else feature_pad.flatten(1)
        position = sine_position_2d(~valid, self.input_proj.out_channels).flatten(2).transpose(1, 2)
        places = valid.cumsum(1).flatten(1), valid.cumsum(2).flatten(1)

        tokens = self.input_proj(features).flatten(2).transpose(1, 2)
        if self.position_in_values:
            tokens = tokens + position
        memory = self.encoder(tokens, position, pad)
        states = self.bert(text_ids, text_pad)[-self.averaged_layers :]
        words = self.bert_proj(torch.stack(states).mean(0))

        verified, score, guided = self.discriminative(memory, words, text_pad, places, pad)
        z = None
        if self.prior_mlp is not None and self.prior_dim is not None:
            z = self.prior_mlp(image.new_zeros(len(image), self.prior_dim) if prior is None else prior)
        start = memory.new_zeros(len(image), memory.shape[-1]) if z is None else z
        relations = self.discriminative.relation_attn.weights(guided, memory, *places, pad) if attention else None
        queries, image_attention = self.decoder(start, words, text_pad, verified + position, memory, pad, attention)
        return Output(
            boxes=self.box_head(queries)[:, :, 0].float().sigmoid(),
            score=score.unflatten(1, size),
            features=features,
            feature_pad=feature_pad,
            memory=memory,
            words=words,
            discriminative=torch.cat([memory, verified], dim=-1),
            queries=queries,
            prior=z,
            relation_attention=relations,
            image_attention=image_attention,
        )
