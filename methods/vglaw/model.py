"""The network of VG-LAW: a plain vision transformer whose q/k/v weights are generated from the sentence, two heads.

Symbols: B batch, L text tokens, N blocks, C visual width, C_t text width, K rank, h x w token grid.

Source: Su et al., "Language Adaptive Weight Generation for Multi-task Visual Grounding", CVPR 2023. The paper's figure
calls the shared factors P and Q, the code S and D; the generator's norm is only in the code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d

from vgbench.layers.bert import Bert
from vgbench.layers.mlp import MLP
from vgbench.layers.vitdet import ViTDet

__all__ = ["Output", "VGLAWNetwork", "WeightGenerator", "adapted_projection"]


@dataclass
class Output:
    """What the network computes.

    Attributes:
        boxes: [B, 4] (cx, cy, w, h) in [0, 1] of the canvas.
        mask_logits: [B, H, W] at the resolution of the image, or None in mode "rec".
        mask_logits_lowres: [B, 4h, 4w] before the last up-sampling, or None.
        text: [B, L, C_t] last hidden states of the text encoder.
        gathered: [N, B, C_t] text features gathered for each block.
        cores: [N, B, K, K] generated matrices Phi.
        visual: [B, C, h, w] output of the last block.
        attention: [B, h, w] of the language-adaptive pooling, sums to 1.
        pooled: [B, C] pooled visual vector.
    """

    boxes: Tensor
    mask_logits: Tensor | None
    mask_logits_lowres: Tensor | None
    text: Tensor
    gathered: Tensor
    cores: Tensor
    visual: Tensor
    attention: Tensor
    pooled: Tensor


def _uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """Kaiming-uniform with a = sqrt(5): U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


class LayerwiseMlp(nn.Module):
    """One MLP ``FC2(GELU(LN(FC1 x)))`` per block, all blocks in one batched product.

    The weights of the N blocks are stacked along the first dimension. FC2 starts at zero, so that training starts from
    the unchanged backbone.
    """

    NORM_EPS = 1e-7  # MindSpore's default

    def __init__(self, blocks: int, dim: int, hidden: int, out: int) -> None:
        super().__init__()
        self.blocks = blocks
        self.fc1_weight = _uniform(blocks * hidden, dim, fan_in=dim)
        self.fc1_bias = _uniform(blocks * hidden, fan_in=dim)
        self.norm_weight = nn.Parameter(torch.ones(blocks * hidden))
        self.norm_bias = nn.Parameter(torch.zeros(blocks * hidden))
        self.fc2_weight = nn.Parameter(torch.zeros(blocks * out, hidden))
        self.fc2_bias = nn.Parameter(torch.zeros(blocks * out))

    def _stacked(self, parameter: Tensor) -> Tensor:
        """[N * out, ...] -> [N, out, ...]; a vector becomes [N, 1, out]."""
        return parameter.unflatten(0, (self.blocks, -1) if parameter.ndim > 1 else (self.blocks, 1, -1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, B, dim] -> [N, B, out]."""
        x = torch.baddbmm(self._stacked(self.fc1_bias), x, self._stacked(self.fc1_weight).transpose(1, 2))
        x = F.layer_norm(x, x.shape[-1:], eps=self.NORM_EPS)
        x = F.gelu(x * self._stacked(self.norm_weight) + self._stacked(self.norm_bias))
        return torch.baddbmm(self._stacked(self.fc2_bias), x, self._stacked(self.fc2_weight).transpose(1, 2))


class WeightGenerator(nn.Module):
    """Layer-wise language gathering and factorised generation of the increments ``Delta W = S Phi D``.

    Args:
        blocks: N.
        text_dim: C_t, a multiple of ``heads`` and at least 16.
        dim: C.
        rank: K.
        heads: heads of the gathering attention, which has no projections.
    """

    def __init__(self, blocks: int, text_dim: int, dim: int, rank: int, heads: int) -> None:
        super().__init__()
        if text_dim % heads:
            raise ValueError(f"text width {text_dim} is not a multiple of {heads} gathering heads")
        self.rank = rank
        self.heads = heads
        self.layer_embedding = _uniform(blocks, 1, text_dim, fan_in=text_dim)
        self.S = _uniform(3 * dim, rank, fan_in=rank)
        self.D = _uniform(rank, dim, fan_in=dim)
        self.proj = LayerwiseMlp(blocks, text_dim, text_dim // 16, rank**2)

    def gather(self, text: Tensor, pad: Tensor) -> Tensor:
        """Text features for each block: attention of its learned embedding over the words.

        Args:
            text: [B, L, C_t].
            pad: [B, L] bool, True = padding.

        Returns:
            [N, B, C_t].
        """
        words = text.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        query = self.layer_embedding[:, 0].unflatten(-1, (self.heads, -1)).transpose(0, 1)
        query = query.to(words.dtype).expand(len(text), -1, -1, -1)
        gathered = F.scaled_dot_product_attention(query, words, words, attn_mask=~pad[:, None, None, :])
        return gathered.permute(2, 0, 1, 3).flatten(2)

    def forward(self, gathered: Tensor) -> Tensor:
        """Phi: [N, B, C_t] -> [N, B, K, K]."""
        return self.proj(gathered).unflatten(-1, (self.rank, self.rank))


def adapted_projection(layer: nn.Linear, tokens: Tensor, S: Tensor, core: Tensor, D: Tensor) -> Tensor:
    """``X W0^T + b + X (S Phi_b D)^T`` without forming the increment: first D, then Phi, then S.

    Args:
        layer: W0 [M, C] and b [M], M = 3C for the fused q, k, v.
        tokens: X, [B, n, C].
        S: [M, K].
        core: Phi, [B, K, K].
        D: [K, C].

    Returns:
        [B, n, M].
    """
    inner = torch.bmm(F.linear(tokens, D), core.transpose(1, 2))
    return torch.addmm(layer(tokens).flatten(0, 1), inner.flatten(0, 1), S.t()).unflatten(0, tokens.shape[:2])


class LanguageAdaptivePooling(nn.Module):
    """Attention of the sentence vector over the visual tokens; the values are the tokens themselves."""

    def __init__(self, text_dim: int, dim: int, key_dim: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(text_dim, key_dim)
        self.k_proj = nn.Linear(dim, key_dim)

    def forward(self, sentence: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C_t] and [B, n, C] -> pooled [B, C] and attention [B, n]."""
        query, keys = self.q_proj(sentence), self.k_proj(tokens)
        scores = torch.einsum("bd,bnd->bn", query, keys).float() / math.sqrt(keys.shape[-1])
        attention = scores.softmax(-1)
        return torch.einsum("bn,bnc->bc", attention.to(tokens.dtype), tokens), attention


class MaskHead(nn.Sequential):
    """Pixel embeddings by two transposed convolutions, compared with the sentence vector by an inner product.

    The inner product is taken with the last convolution's kernel instead of with its output: the sentence turns the
    kernel [hidden, C_t, 2, 2] into one [hidden, 2, 2] per sample, and the C_t-channel map at 4h x 4w (38 MB per sample
    at 448 px in float32) is never computed.
    """

    def __init__(self, dim: int, hidden: int, text_dim: int) -> None:
        first = nn.ConvTranspose2d(dim, hidden, 2, stride=2)
        last = nn.ConvTranspose2d(hidden, text_dim, 2, stride=2)
        for parameter in (*first.parameters(), *last.parameters()):
            nn.init.normal_(parameter, std=0.01)
        super().__init__(first, LayerNorm2d(hidden, eps=1e-6), nn.GELU(), last)

    def forward(self, visual: Tensor, sentence: Tensor) -> Tensor:  # type: ignore[override]
        """[B, C, h, w] and [B, C_t] -> logits [B, 4h, 4w]."""
        weight, bias = self[3].parameters()
        kernel = torch.einsum("bt,ctyx->bcyx", sentence, weight).flatten(2)
        logits = torch.einsum("bchw,bck->bkhw", self[2](self[1](self[0](visual))), kernel)
        return F.pixel_shuffle(logits.float(), 2)[:, 0] + (sentence @ bias)[:, None, None].float()


class VGLAWNetwork(nn.Module):
    """Text encoder, weight generator, adapted visual encoder, box head and (optionally) mask head.

    Args:
        visual: backbone.
        text: encoder; its last hidden states are used.
        rank: K, rank of the weight increments.
        gather_heads: heads of the language gathering.
        key_dim: width of the pooling's query and keys.
        box_dim: hidden width of the box MLP.
        mask_dim: width between the two up-sampling convolutions; None: no mask head.
    """

    def __init__(
        self,
        visual: ViTDet,
        text: Bert,
        rank: int = 32,
        gather_heads: int = 12,
        key_dim: int = 64,
        box_dim: int = 256,
        mask_dim: int | None = 256,
    ) -> None:
        super().__init__()
        dim, text_dim = visual.pos_embed.shape[-1], text.hidden_size
        self.text_encoder = text
        self.visual_encoder = visual
        self.weight_generator = WeightGenerator(len(visual.blocks), text_dim, dim, rank, gather_heads)
        self.ada_gap = LanguageAdaptivePooling(text_dim, dim, key_dim)
        self.up_sample = None if mask_dim is None else MaskHead(dim, mask_dim, text_dim)
        self.bbox_pred = MLP([dim, box_dim, box_dim, 4])

    def forward(self, image: Tensor, text_ids: Tensor, text_pad: Tensor) -> Output:
        """Ground one expression per image.

        Args:
            image: [B, 3, H, W] normalised, padding zero (the padding is not masked anywhere).
            text_ids: [B, L] int64.
            text_pad: [B, L] bool, True = padding.
        """
        text = self.text_encoder(text_ids, text_pad)[-1]
        sentence = text[:, 0]
        generator = self.weight_generator
        gathered = generator.gather(text, text_pad)
        cores = generator(gathered)

        adapters = [(generator.S, core, generator.D) for core in cores.unbind()]
        visual = self.visual_encoder(image, adapted_projection, adapters)
        pooled, attention = self.ada_gap(sentence, visual.flatten(2).transpose(1, 2))
        logits = full = None
        if self.up_sample is not None:
            logits = self.up_sample(visual, sentence)
            full = F.interpolate(logits[:, None], image.shape[-2:], mode="bilinear", align_corners=True)[:, 0]
        return Output(
            boxes=self.bbox_pred(pooled).float().sigmoid(),
            mask_logits=full,
            mask_logits_lowres=logits,
            text=text,
            gathered=gathered,
            cores=cores,
            visual=visual,
            attention=attention.unflatten(-1, visual.shape[-2:]),
            pooled=pooled,
        )
