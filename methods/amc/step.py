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
    """Image tokens, text embeddings and unit contrastive features; ``_m``: of the momentum model."""

    image_embeds: Tensor
    text_embeds: Tensor
    image_feat: Tensor
    text_feat: Tensor
    image_embeds_m: Tensor
    image_feat_m: Tensor
    text_feat_m: Tensor


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
    encoded = encode(network, pairs, config.momentum)
    _keep(trace, **encoded._asdict())
    ita = itc(network, encoded, alpha)
    _keep(trace, sim_i2t=ita.sim_i2t, sim_t2i=ita.sim_t2i)
    explained = None
    if config.consistency is None:
        fusion, _ = network.text_encoder.fuse(encoded.text_embeds, pairs.pad, encoded.image_embeds)
        logits = network.match(fusion)
    else:
        explained = explained_fusion(
            network, encoded.text_embeds, pairs.pad, encoded.image_embeds, config.consistency.layer
        )
        fusion, logits = explained.hidden, explained.logits
    _keep(trace, fusion_pos=fusion)
    negatives = draws.negatives or losses.draw_negatives(ita.sim_i2t, ita.sim_t2i)
    matching = itm(network, encoded, pairs.pad, logits, negatives, trace)
    words = mlm(network, config, encoded, pairs, draws.masked_words, alpha, trace)
    terms = {"mlm": words, "ita": ita.loss, "itm": matching}
    total = words + ita.loss + matching
    if config.consistency is not None and explained is not None:
        grid = network.visual_encoder.grid(pairs.image)
        terms |= consistency(config.consistency, explained, pairs, grid, draws.selected, trace)
        total = total + terms["gcam_masked"]
    return terms | {"total": total}


def encode(network: ALBEF, pairs: Pairs, momentum: float) -> Encoded:
    """Both encoders and, after its update, the momentum model's."""
    image_embeds = network.visual_encoder(pairs.image)
    text_embeds = network.text_encoder.text(pairs.ids, pairs.pad)
    features = network.image_feature(image_embeds), network.text_feature(text_embeds)
    with torch.no_grad():
        network.update_momentum(momentum)
        image_embeds_m = network.visual_encoder_m(pairs.image)
        image_feat_m = network.image_feature(image_embeds_m, momentum=True)
        text_embeds_m = network.text_encoder_m.text(pairs.ids, pairs.pad)
        text_feat_m = network.text_feature(text_embeds_m, momentum=True)
    return Encoded(image_embeds, text_embeds, *features, image_embeds_m, image_feat_m, text_feat_m)


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


def itm(
    network: ALBEF,
    encoded: Encoded,
    pad: Tensor,
    logits: Tensor,
    negatives: tuple[Tensor, Tensor],
    trace: Trace | None = None,
) -> Tensor:
    """Image-text matching: the pairs' logits [B, 2] against those of every text with another image and every image
    with another text."""
    images, texts = negatives
    same = torch.arange(len(pad), device=pad.device)
    fusion, _ = network.text_encoder.fuse(
        torch.cat([encoded.text_embeds, encoded.text_embeds[texts]]),
        torch.cat([pad, pad[texts]]),
        encoded.image_embeds,
        index=torch.cat([images, same]),
    )
    all_logits = torch.cat([logits, network.match(fusion)])
    _keep(trace, fusion_neg=fusion, itm_logits=all_logits)
    return losses.matching(all_logits)


def mlm(
    network: ALBEF,
    config: StepConfig,
    encoded: Encoded,
    pairs: Pairs,
    masked_words: tuple[Tensor, Tensor] | None,
    alpha: Tensor,
    trace: Trace | None = None,
) -> Tensor:
    """Masked words, told by the words and the image around them."""
    words = config.words
    ids, labels = masked_words or losses.mask_words(
        pairs.ids, words.vocab_size, words.pad_id, words.cls_id, words.mask_id
    )
    logits = network.text_encoder.masked_words(ids, pairs.pad, encoded.image_embeds)
    with torch.no_grad():
        logits_m = network.text_encoder_m.masked_words(ids, pairs.pad, encoded.image_embeds_m)
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
