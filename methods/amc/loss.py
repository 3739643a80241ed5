"""Losses of AMC: ITC, ITM, MLM (ALBEF) and attention mask consistency of Grad-CAM maps.

All of it in float32, whatever the autocast state. B pairs, K queue entries, E feature width, L text positions,
N = h * w patches, V words.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100


class Contrastive(NamedTuple):
    """ITC loss and the similarities behind it, [B, B + K]: in-batch columns of this process first, then the queue."""

    loss: Tensor
    sim_i2t: Tensor
    sim_t2i: Tensor


def contrastive(
    image: Tensor,
    text: Tensor,
    image_m: Tensor,
    text_m: Tensor,
    image_queue: Tensor,
    text_queue: Tensor,
    temp: Tensor,
    alpha: Tensor,
) -> Contrastive:
    """ITC with momentum distillation (ALBEF, eq. 2 and 6).

    Args:
        image, text: unit features [B, E]; gradients reach them and ``temp``.
        image_m, text_m: unit features of the momentum model [B, E].
        image_queue, text_queue: momentum features of past batches [E, K], before this step's update.
        temp: temperature, scalar.
        alpha: weight of the momentum model's soft targets, scalar.
    """
    with torch.autocast(image.device.type, enabled=False):
        texts = torch.cat([text_m.T, text_queue], dim=1)
        images = torch.cat([image_m.T, image_queue], dim=1)
        sim_i2t, sim_t2i = image @ texts / temp, text @ images / temp
        with torch.no_grad():
            soft_i2t = (image_m @ texts / temp).softmax(1)
            soft_t2i = (text_m @ images / temp).softmax(1)

        def distilled(similarity: Tensor, soft: Tensor) -> Tensor:
            log_p = similarity.log_softmax(1)
            return -(alpha * (soft * log_p).sum(1) + (1 - alpha) * log_p.diagonal()).mean()

        loss = 0.5 * (distilled(sim_i2t, soft_i2t) + distilled(sim_t2i, soft_t2i))
    return Contrastive(loss, sim_i2t, sim_t2i)


@torch.no_grad()
def negative_weights(similarity: Tensor) -> Tensor:
    """Weights [B, B] for drawing a hard negative per row: softmax of the in-batch similarities, diagonal 0.

    Where everything else underflows to 0 the other samples get equal weights (official: ``multinomial`` raises).
    """
    size = len(similarity)
    weights = similarity[:, :size].softmax(1).fill_diagonal_(0)
    others = torch.ones_like(weights).fill_diagonal_(0)
    return torch.where(weights.sum(1, keepdim=True) > 0, weights, others)


def draw_negatives(sim_i2t: Tensor, sim_t2i: Tensor) -> tuple[Tensor, Tensor]:
    """Index of a negative image for every text [B] and of a negative text for every image [B], drawn in this order."""
    return _draw(negative_weights(sim_t2i)), _draw(negative_weights(sim_i2t))


def _draw(weights: Tensor) -> Tensor:
    """One column per row [B, n] -> [B], as ``torch.multinomial`` draws it, without its look at the values (which waits
    for the device)."""
    return (weights / torch.empty_like(weights).exponential_(1)).argmax(1)


def matching(logits: Tensor) -> Tensor:
    """ITM: mean cross entropy of logits [3B, 2]; the first B rows match."""
    labels = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
    labels[: len(logits) // 3] = 1
    return F.cross_entropy(logits.float(), labels)


class Consistency(NamedTuple):
    """The two AMC terms (scalars) and the maps upsampled to the mask's size [B, H, W]."""

    mean_margin: Tensor
    max_margin: Tensor
    upsampled: Tensor


def consistency(
    heat: Tensor, mask: Tensor, selected: Tensor, margin_mean: float = 0.1, margin_max: float = 0.5
) -> Consistency:
    """Attention mask consistency: heat inside the box must exceed heat outside by a margin, in mean and in maximum.

    The mean term pools its four sums over all selected samples, the maximum term is per sample (AMC, section 3.2).
    Without a selected sample, or without a pixel inside or outside, the term is 0 (official: crash, or NaN).

    Args:
        heat: normalised maps [B, h, w].
        mask: 1 inside the box, [B, H, W].
        selected: [B] bool, the samples that have a box.
    """
    mask = mask.float()
    upsampled = F.interpolate(heat[:, None], size=mask.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    weight = selected.float()
    inside, outside = upsampled * mask, upsampled * (1 - mask)
    pooled, area_in = weight[:, None, None], (mask.sum((1, 2)) * weight).sum()
    area_out = ((1 - mask).sum((1, 2)) * weight).sum()
    difference = (outside * pooled).sum() / area_out.clamp(min=1) - (inside * pooled).sum() / area_in.clamp(min=1)
    defined = (area_in > 0) & (area_out > 0)
    mean_term = F.relu(difference + margin_mean) * defined
    peaks = outside.flatten(1).max(1).values - inside.flatten(1).max(1).values
    max_term = (F.relu(peaks + margin_max) * weight).sum() / weight.sum().clamp(min=1)
    return Consistency(mean_term, max_term, upsampled)


def mask_words(
    ids: Tensor, vocab_size: int, pad_id: int, cls_id: int, mask_id: int, probability: float = 0.15
) -> tuple[Tensor, Tensor]:
    """BERT's masking: of the chosen ids 80 % become [MASK], 10 % a random id, 10 % stay.

    Args:
        ids: [B, L] int64; padding and [CLS] are never chosen.

    Returns:
        masked ids [B, L] and labels [B, L] (the original id where chosen, else -100).
    """

    def draw(p: float) -> Tensor:
        return torch.rand(ids.shape, device=ids.device) < p

    selection = draw(probability) & (ids != pad_id) & (ids != cls_id)
    replaced = draw(0.8) & selection
    randomised = draw(0.5) & selection & ~replaced
    words = torch.randint(vocab_size, ids.shape, device=ids.device)
    masked = torch.where(replaced, mask_id, torch.where(randomised, words, ids))
    return masked, torch.where(selection, ids, IGNORED)


def masked_language(
    logits: Tensor, logits_m: Tensor, labels: Tensor, alpha: Tensor, axis: Literal["tokens", "vocabulary"] = "tokens"
) -> Tensor:
    """MLM with momentum distillation, means over the chosen positions (0 if there is none; official: NaN).

    Args:
        logits, logits_m: [B, L, V] of the model and of the momentum model.
        labels: [B, L], -100 where not chosen.
        alpha: weight of the distillation, scalar.
        axis: what the distillation's log-softmax runs over: "vocabulary" (ALBEF), or "tokens", the positions of the
            text with its padding, as the official AMC code has it.
    """
    logits = logits.float()
    labelled = labels != IGNORED
    count = labelled.sum().clamp(min=1)
    hard = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum") / count
    log_p = logits.log_softmax(1 if axis == "tokens" else 2)
    soft = -((log_p * logits_m.float().softmax(2)).sum(2) * labelled).sum() / count
    return (1 - alpha) * hard + alpha * soft
