"""Samples -> batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vgbench.types import Batch, Normalization, Sample


def collate(
    samples: Sequence[Sample | str], tokenize: Callable[[Sequence[str]], tuple[Tensor, Tensor]]
) -> Batch | None:
    """Stack transformed samples; bad ones (strings) are left out and counted in ``batch.skipped``.

    Images that a transform leaves in sizes of their own are padded right and below to the largest of the batch.
    ``Batch.to`` normalises what the transforms left to be normalised late.

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
    height, width = (max(sample["image"].shape[side] for sample in good) for side in (-2, -1))
    masks = None
    if "masks" in good[0]:
        masks = torch.zeros(len(good), targets, height, width, dtype=torch.uint8)
    for number, sample in enumerate(good):
        count = len(sample["boxes"])
        boxes[number, :count] = sample["boxes"].as_subclass(Tensor)
        valid[number, :count] = True
        if masks is not None:
            own_masks = sample["masks"].as_subclass(Tensor)
            masks[number, :count, : own_masks.shape[-2], : own_masks.shape[-1]] = own_masks
    images = [sample["image"].as_subclass(Tensor) for sample in good]
    image_pad = None
    if any(image.shape[-2:] != (height, width) for image in images):
        pads = [torch.zeros(image.shape[-2:], dtype=torch.bool) for image in images]
        image_pad = torch.stack([_enlarged(pad, height, width, True) for pad in pads])
        images = [_enlarged(image, height, width, 0) for image in images]
    elif any("pad" in sample for sample in good):
        image_pad = torch.stack([sample["pad"] for sample in good])
    normalization, content = _late_normalization(good, (height, width))
    return Batch(
        image=torch.stack(images),
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
        normalization=normalization,
        content=content,
    )


def _late_normalization(samples: Sequence[Sample], size: tuple[int, int]) -> tuple[Normalization | None, Tensor | None]:
    """What the samples' images have still to go through, and where the pictures lie in a batch of ``size``."""
    normalization = samples[0].get("normalization")
    if normalization is None:
        return None, None
    whole = (0, 0, *size)
    content = [sample.get("content", (0, 0, *sample["image"].shape[-2:])) for sample in samples]
    return normalization, None if all(one == whole for one in content) else torch.tensor(content)


def _enlarged(image: Tensor, height: int, width: int, value: float) -> Tensor:
    """An image [..., h, w] padded right and below."""
    return F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]), value=value)
