"""Made-up samples and batches with the shapes of real ones, for measurements."""

from __future__ import annotations

from typing import Any

import torch
from torchvision import tv_tensors

from vgbench.method import GroundingMethod
from vgbench.types import Batch, Sample


def synthetic_sample(method: GroundingMethod, size: tuple[int, int] = (480, 640), seed: int = 0) -> Sample:
    """A random image with one box in the middle (and its mask, if the method reads masks), not yet transformed."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    coarse = torch.rand(1, 3, max(2, height // 16), max(2, width // 16), generator=generator)
    image = (torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")[0] * 255).to(torch.uint8)
    box = torch.tensor([[width * 0.25, height * 0.25, width * 0.7, height * 0.75]])
    sample: Sample = {
        "image": tv_tensors.Image(image),
        "boxes": tv_tensors.BoundingBoxes(box, format="XYXY", canvas_size=size),  # type: ignore[call-overload]
        "text": "",
        "key": str(seed),
    }
    if method.wants_masks:
        mask = torch.zeros(1, height, width, dtype=torch.uint8)
        mask[:, height // 4 : height * 3 // 4, width // 4 : width * 7 // 10] = 1
        sample["masks"] = tv_tensors.Mask(mask)
    if method.auxiliary_shapes:
        sample["auxiliary"] = {
            name: torch.randn(shape, generator=generator) for name, shape in method.auxiliary_shapes.items()
        }
    return sample


def synthetic_batch(method: GroundingMethod, size: int, image: tuple[int, int] = (480, 640)) -> Batch:
    """A batch with the shapes of real ones and random word ids: no tokenizer file is needed.

    Half of the text positions are padding.
    """
    from vgbench.batches.collate import collate

    length, vocabulary = method.text_shape
    generator = torch.Generator().manual_seed(0)

    def tokenize(texts: Any) -> tuple[torch.Tensor, torch.Tensor]:
        ids = torch.randint(min(4, vocabulary - 1), vocabulary, (len(texts), length), generator=generator)
        pad = (torch.arange(length) >= (length + 1) // 2).expand(len(texts), length).clone()
        ids[pad] = method.pad_id
        return ids, pad

    transform = method.eval_transform()
    batch = collate([transform(synthetic_sample(method, image, seed)) for seed in range(size)], tokenize)
    assert batch is not None
    return batch
