"""Run lengths found with tensor operations against pycocotools, and enlargement by groups of one size."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools import mask as coco

from vgbench.layers.masks import encode_masks, resize_to_images


def test_strings_are_those_of_pycocotools() -> None:
    generator = torch.Generator().manual_seed(0)
    masks = [torch.zeros(5, 7), torch.ones(5, 7), torch.ones(1, 1), torch.zeros(1, 1)]
    for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1), (2, 3)):
        one = torch.zeros(5, 7)
        one[corner] = 1
        masks += [one, 1 - one]
    for share in (0.01, 0.5, 0.99):
        masks += [(torch.rand(height, width, generator=generator) < share).float() for height, width in
                  ((1, 9), (9, 1), (33, 20), (480, 640))]  # fmt: skip
    encoded = encode_masks([mask.bool() for mask in masks])
    for mask, ours in zip(masks, encoded, strict=True):
        theirs = coco.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
        assert ours == {"size": list(theirs["size"]), "counts": theirs["counts"].decode()}
    assert encode_masks([]) == []


def test_maps_are_enlarged_as_if_each_were_alone() -> None:
    maps = torch.rand(4, 6, 8)
    sizes = [(12, 20), (9, 9), (12, 20), (30, 7)]
    together = resize_to_images(maps, sizes, lambda x: x >= 0.5)
    cropped = resize_to_images([maps[0, :3], maps[1, :3], maps[2]], [(9, 9)] * 3, lambda x: x)
    for one, size, mask in zip(maps, sizes, together, strict=True):
        alone = F.interpolate(one[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        assert torch.equal(mask, alone >= 0.5)
    assert torch.equal(cropped[2], F.interpolate(maps[2:, None][:1], (9, 9), mode="bilinear")[0, 0])
