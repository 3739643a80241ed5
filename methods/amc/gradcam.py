"""Grad-CAM over attention maps of ALBEF: what a matching score or a similarity rests on in the image.

B texts, I images, L text positions, N = h * w patches, D text width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from vgbench.methods.amc.model import ALBEF

MAP_EPS = 1e-7


def gradcam(attention: Tensor, gradient: Tensor, pad: Tensor, grid: tuple[int, int]) -> Tensor:
    """Grad-CAM map of a cross-attention: mean over heads and text positions of ``A m * max(G, 0) m``.

    Args:
        attention, gradient: A and G [B, heads, L, 1 + N] float32; the column of the image's class token is dropped.
        pad: [B, L] bool, True = padding: contributes nothing, but counts in the divisor.
        grid: (h, w).

    Returns:
        [B, h, w], not normalised.
    """
    tokens = (~pad)[:, None, :, None].float()
    product = (attention[..., 1:] * tokens) * (gradient[..., 1:].clamp(min=0) * tokens)
    return product.mean(dim=(1, 2)).unflatten(1, grid)


def normalise_map(heat: Tensor) -> Tensor:
    """Per-sample min-max normalisation [B, h, w]; gradients pass through minimum and maximum."""
    flat = heat.flatten(1)
    flat = flat - flat.min(1, keepdim=True).values
    flat = flat / (flat.max(1, keepdim=True).values + MAP_EPS)
    return flat.view_as(heat)


class ExplainedPass(NamedTuple):
    """A fusion pass with the map that explains it: hidden [B, L, D], matching logits [B, 2], the cross-attention A and
    its gradient G [B, heads, L, 1 + N] float32."""

    hidden: Tensor
    logits: Tensor
    attention: Tensor
    gradient: Tensor


# torch.compile has no double backward, so everything between the map and the score stays eager.
@torch.compiler.disable
def explained_fusion(network: ALBEF, hidden: Tensor, pad: Tensor, image: Tensor, first: int) -> ExplainedPass:
    """The later fusion layers on matching pairs in training: G is part of the graph, A and G can be differentiated.

    Args:
        network: encoders and matching head.
        hidden: what the fusion layers before ``first`` made of the texts [B, L, D].
        pad: [B, L] bool, True = padding.
        image: image tokens [B, 1 + N, vision width].
        first: fusion layer (from 0) whose cross-attention is A.
    """
    hidden, attention = network.text_encoder.explain(hidden, pad, image, first)
    logits = network.match(hidden)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), attention, create_graph=True)
    return ExplainedPass(hidden, logits, attention, gradient)


class Expressions(NamedTuple):
    """B expressions over I images.

    Attributes:
        images: [I, 3, H, W] normalised; each is encoded once.
        image_index: [B] int64, the image of each expression.
        text_ids, text_pad: [B, L] int64 and bool (True = padding).
    """

    images: Tensor
    image_index: Tensor
    text_ids: Tensor
    text_pad: Tensor


def explain_matching(network: ALBEF, expressions: Expressions, layer: int) -> dict[str, Tensor]:
    """Grad-CAM of the matching score on the cross-attention of BERT layer ``layer``.

    Returns:
        ``gradcam`` [B, h, w] (not normalised), ``cross_attention_map`` and ``cross_attention_grad``
        [B, heads, L, 1 + N] (float32), ``itm_logits`` [B, 2], ``fusion`` [B, L, D], ``image_embeds``
        [I, 1 + N, vision width].
    """
    images, image_index, text_ids, text_pad = expressions
    text = network.text_encoder
    first = layer - text.fusion_layer
    with torch.no_grad():
        image_embeds = network.visual_encoder(images)
        hidden = text.text(text_ids, text_pad)
        hidden = text.fuse(hidden, text_pad, image_embeds, image_index, slice(first))
    with torch.enable_grad():
        fusion, attention = text.explain(hidden, text_pad, image_embeds, first, image_index, cut=True)
        logits = network.match(fusion)
        (gradient,) = torch.autograd.grad(logits[:, 1].sum(), attention)
    attention = attention.detach()
    return {
        "gradcam": gradcam(attention, gradient, text_pad, network.visual_encoder.grid(images)),
        "cross_attention_map": attention,
        "cross_attention_grad": gradient,
        "itm_logits": logits.detach(),
        "fusion": fusion.detach(),
        "image_embeds": image_embeds,
    }


def explain_similarity(network: ALBEF, expressions: Expressions, block: int) -> Tensor:
    """Grad-CAM of the contrastive similarity on the self-attention of ViT block ``block``, class-token row.

    Returns:
        [B, h, w], not normalised.
    """
    images, image_index, text_ids, text_pad = expressions
    with torch.no_grad():
        text = network.text_feature(network.text_encoder.text(text_ids, text_pad))
    with torch.enable_grad():
        tokens, attention = network.visual_encoder.with_attention(images, image_index, block)
        similarity = (network.image_feature(tokens) * text).sum(1) / network.temp.detach()
        (gradient,) = torch.autograd.grad(similarity.sum(), attention)
    heat = (attention.detach() * gradient.clamp(min=0))[:, :, 0, 1:].mean(1)
    return heat.unflatten(1, network.visual_encoder.grid(images))
