"""AMC's training step: contrastive, matching and word losses of ALBEF, and attention mask consistency.

B pairs, L text positions, N patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from vgbench.core.errors import UserError
from vgbench.methods.amc import loss as losses
from vgbench.methods.amc.gradcam import ExplainedPass, explained_fusion, gradcam, normalise_map
from vgbench.methods.amc.model import ALBEF

__all__ = ["UNDRAWN", "ConsistencyConfig", "Draws", "Pairs", "StepConfig", "Trace", "Words", "training_losses"]

#: Tensors on the way to the losses by name, for comparisons with the official code.
Trace = dict[str, Tensor]


def _keep(trace: Trace | None, **tensors: Tensor) -> None:
    if trace is not None:
        trace.update(tensors)


@dataclass(frozen=True)
class Words:
    """Ids of the vocabulary that the word masking needs."""

    vocab_size: int = 30522
    pad_id: int = 0
    cls_id: int = 101
    mask_id: int = 103


@dataclass(frozen=True)
class ConsistencyConfig:
    """Margins and weights of the two AMC terms (mean and maximum), and the BERT layer that is explained."""

    layer: int = 8
    margin_mean: float = 0.1
    margin_max: float = 0.5
    weight_mean: float = 0.2
    weight_max: float = 0.8


@dataclass(frozen=True)
class StepConfig:
    """Settings of the step.

    Attributes:
        words: for the masking.
        momentum: of the momentum model.
        mlm_distill_axis: see :func:`vgbench.methods.amc.loss.masked_language`.
        consistency: the AMC terms; None: plain ALBEF.
    """

    words: Words
    momentum: float = 0.995
    mlm_distill_axis: Literal["tokens", "vocabulary"] = "tokens"
    consistency: ConsistencyConfig | None = ConsistencyConfig()


class Pairs(NamedTuple):
    """What a step learns from.

    Attributes:
        image: [B, 3, S, S] normalised.
        ids, pad: [B, L] int64 and bool (True = padding).
        mask: [B, H, W], 1 inside the box.
    """

    image: Tensor
    ids: Tensor
    pad: Tensor
    mask: Tensor


class Draws(NamedTuple):
    """What a step draws or decides by itself where it is None.

    Attributes:
        selected: [B] bool, samples of the AMC terms; None: those whose mask is not empty.
        negatives: indices (image for each text, text for each image) [B].
        masked_words: (masked ids, labels) [B, L].
    """

    selected: Tensor | None = None
    negatives: tuple[Tensor, Tensor] | None = None
    masked_words: tuple[Tensor, Tensor] | None = None


UNDRAWN = Draws()  # a training's steps: everything is drawn


class Encoded(NamedTuple):
    """Image tokens, embeddings of the texts and of the masked texts, and unit contrastive features; ``_m``: of the
    momentum model."""

    image_embeds: Tensor
    text_embeds: Tensor
    masked_embeds: Tensor
    image_feat: Tensor
    text_feat: Tensor
    image_embeds_m: Tensor
    masked_embeds_m: Tensor
    image_feat_m: Tensor
    text_feat_m: Tensor


class Fused(NamedTuple):
    """Fused texts [B, L, D]: every text with another image, every image with another text, every text's masked words
    with its image; and of the matching pairs the map that explains them, or, without consistency, only the text."""

    other_image: Tensor
    other_text: Tensor
    masked: Tensor
    matching: Tensor
    explained: ExplainedPass | None


def training_losses(
    network: ALBEF,
    config: StepConfig,
    pairs: Pairs,
    alpha: Tensor,
    draws: Draws = UNDRAWN,
    trace: Trace | None = None,
) -> dict[str, Tensor]:
    """One step: momentum model, queues and temperature are brought forward, and the losses computed.

    Args:
        network: the model.
        config: settings.
        pairs: at least two.
        alpha: weight of the momentum model's targets, scalar.
        draws: recorded draws in place of random ones.
        trace: is filled with the tensors on the way.

    Returns:
        ``mlm``, ``ita``, ``itm``, with consistency ``gcam_masked1`` (mean margin), ``gcam_masked2`` (maximum margin)
        and ``gcam_masked`` (their weighted sum), and ``total``.

    Raises:
        UserError: for a single pair, which has no negatives.
    """
    if len(pairs.image) < 2:
        raise UserError("AMC needs at least two pairs per process and step; set recipe.batch_size=2 or more")
    network.clamp_temperature()
    words = config.words
    ids, labels = draws.masked_words or losses.mask_words(
        pairs.ids, words.vocab_size, words.pad_id, words.cls_id, words.mask_id
    )
    encoded = encode(network, pairs, ids, config.momentum)
    _keep(trace, **encoded._asdict())
    ita = itc(network, encoded, alpha)
    _keep(trace, sim_i2t=ita.sim_i2t, sim_t2i=ita.sim_t2i)
    negatives = draws.negatives or losses.draw_negatives(ita.sim_i2t, ita.sim_t2i)
    fused = fuse(network, config.consistency, encoded, pairs.pad, negatives)
    matching = itm(network, fused, trace)
    word = mlm(network, config, encoded, pairs.pad, fused.masked, labels, alpha, trace)
    terms = {"mlm": word, "ita": ita.loss, "itm": matching}
    total = word + ita.loss + matching
    if config.consistency is not None and fused.explained is not None:
        grid = network.visual_encoder.grid(pairs.image)
        terms |= consistency(config.consistency, fused.explained, pairs, grid, draws.selected, trace)
        total = total + terms["gcam_masked"]
    return terms | {"total": total}


def encode(network: ALBEF, pairs: Pairs, masked_ids: Tensor, momentum: float) -> Encoded:
    """Both encoders and, after its update, the momentum model's; words and masked words [B, L] in one pass."""
    ids, pad = torch.cat([pairs.ids, masked_ids]), pairs.pad.repeat(2, 1)
    image_embeds = network.visual_encoder(pairs.image)
    text_embeds, masked_embeds = network.text_encoder.text(ids, pad).chunk(2)
    features = network.image_feature(image_embeds), network.text_feature(text_embeds)
    with torch.no_grad():
        network.update_momentum(momentum)
        image_embeds_m = network.visual_encoder_m(pairs.image)
        text_embeds_m, masked_embeds_m = network.text_encoder_m.text(ids, pad).chunk(2)
        features_m = network.image_feature(image_embeds_m, True), network.text_feature(text_embeds_m, True)
    return Encoded(image_embeds, text_embeds, masked_embeds, *features, image_embeds_m, masked_embeds_m, *features_m)


def itc(network: ALBEF, encoded: Encoded, alpha: Tensor) -> losses.Contrastive:
    """Image-text contrast against batch and queues, which take the batch's momentum features afterwards."""
    ita = losses.contrastive(
        encoded.image_feat,
        encoded.text_feat,
        encoded.image_feat_m,
        encoded.text_feat_m,
        network.image_queue,
        network.text_queue,
        network.temp,
        alpha,
    )
    network.enqueue(encoded.image_feat_m, encoded.text_feat_m)
    return ita


def fuse(
    network: ALBEF,
    config: ConsistencyConfig | None,
    encoded: Encoded,
    pad: Tensor,
    negatives: tuple[Tensor, Tensor],
) -> Fused:
    """All texts of the step through the fusion layers in one pass, but for those layers that are explained.

    Args:
        network: the model.
        config: names the explained layer; None: nothing is explained.
        encoded: of :func:`encode`.
        pad: [B, L] bool, True = padding.
        negatives: an image for each text, a text for each image [B].
    """
    encoder, image, count = network.text_encoder, encoded.image_embeds, len(pad)
    images, texts = negatives
    hidden = torch.cat([encoded.text_embeds, encoded.text_embeds[texts], encoded.masked_embeds, encoded.text_embeds])
    pad = torch.cat([pad, pad[texts], pad, pad])
    first = 0 if config is None else config.layer - encoder.fusion_layer
    hidden = encoder.fuse(hidden, pad, image, images, slice(first))
    if config is None:
        matching, *rest = encoder.fuse(hidden, pad, image, images).chunk(4)
        explained = None
    else:
        explained = explained_fusion(network, hidden[:count], pad[:count], image, first)
        matching = explained.hidden
        rest = list(encoder.fuse(hidden[count:], pad[count:], image, images, slice(first, None)).chunk(3))
    other_text, masked, other_image = rest
    return Fused(other_image, other_text, masked, matching, explained)


def itm(network: ALBEF, fused: Fused, trace: Trace | None = None) -> Tensor:
    """Image-text matching: the pairs against those of every text with another image and every image with another
    text."""
    logits = network.match(fused.matching) if fused.explained is None else fused.explained.logits
    others = torch.cat([fused.other_image, fused.other_text])
    logits = torch.cat([logits, network.match(others)])
    _keep(trace, fusion_pos=fused.matching, fusion_neg=others, itm_logits=logits)
    return losses.matching(logits)


def mlm(
    network: ALBEF,
    config: StepConfig,
    encoded: Encoded,
    pad: Tensor,
    fused: Tensor,
    labels: Tensor,
    alpha: Tensor,
    trace: Trace | None = None,
) -> Tensor:
    """Masked words, told by the words and the image around them: fused texts [B, L, D], labels [B, L]."""
    logits = network.text_encoder.word_logits(fused)
    with torch.no_grad():
        fused_m = network.text_encoder_m.fuse(encoded.masked_embeds_m, pad, encoded.image_embeds_m)
        logits_m = network.text_encoder_m.word_logits(fused_m)
    _keep(trace, mlm_logits=logits, mlm_logits_m=logits_m)
    return losses.masked_language(logits, logits_m, labels, alpha, config.mlm_distill_axis)


def consistency(
    config: ConsistencyConfig,
    explained: ExplainedPass,
    pairs: Pairs,
    grid: tuple[int, int],
    selected: Tensor | None,
    trace: Trace | None = None,
) -> dict[str, Tensor]:
    """The AMC terms on the normalised Grad-CAM maps of the matching pairs; ``selected`` as in :class:`Draws`."""
    heat = normalise_map(gradcam(explained.attention, explained.gradient, pairs.pad, grid))
    if selected is None:
        selected = (pairs.mask > 0).flatten(1).any(1)
    terms = losses.consistency(heat, pairs.mask, selected, config.margin_mean, config.margin_max)
    _keep(
        trace,
        cross_attention_map=explained.attention,
        cross_attention_grad=explained.gradient,
        gradcam_normalised=heat,
        gradcam_upsampled=terms.upsampled,
    )
    return {
        "gcam_masked1": terms.mean_margin,
        "gcam_masked2": terms.max_margin,
        "gcam_masked": config.weight_mean * terms.mean_margin + config.weight_max * terms.max_margin,
    }
