"""Samples -> batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vgbench.types import Batch, Sample


def collate(
    samples: Sequence[Sample | str], tokenize: Callable[[Sequence[str]], tuple[Tensor, Tensor]]
) -> Batch | None:
    """Stack transformed samples; bad ones (strings) are left out and counted in ``batch.skipped``.

    None if nothing is left (Lightning skips such a batch).
    """
    skipped = tuple(sample for sample in samples if isinstance(sample, str))
    good = [sample for sample in samples if not isinstance(sample, str)]
    if not good:
        return None
    ids, pad = tokenize([sample["text"] for sample in good])
    targets = max(1, *(len(sample["boxes"]) for sample in good)) if len(good) > 1 else max(1, len(good[0]["boxes"]))
    boxes = torch.zeros(len(good), targets, 4)
    valid = torch.zeros(len(good), targets, dtype=torch.bool)
    masks = None
    if "masks" in good[0]:
        masks = torch.zeros(len(good), targets, *good[0]["image"].shape[-2:], dtype=torch.uint8)
    for number, sample in enumerate(good):
        count = len(sample["boxes"])
        boxes[number, :count] = sample["boxes"].as_subclass(Tensor)
        valid[number, :count] = True
        if masks is not None:
            masks[number, :count] = sample["masks"].as_subclass(Tensor)
    image_pad = None
    if any("pad" in sample for sample in good):
        image_pad = torch.stack([sample["pad"] for sample in good])
    return Batch(
        image=torch.stack([sample["image"].as_subclass(Tensor) for sample in good]),
        text_ids=ids,
        text_pad=pad,
        boxes=boxes,
        valid=valid,
        masks=masks,
        image_pad=image_pad,
        auxiliary={name: torch.stack([s["auxiliary"][name] for s in good]) for name in good[0].get("auxiliary", {})},
        geometry=[sample["geometry"] for sample in good],
        keys=[sample["key"] for sample in good],
        texts=[sample["text"] for sample in good],
        skipped=skipped,
        image_ids=[sample["image_id"] for sample in good if "image_id" in sample],
    )
