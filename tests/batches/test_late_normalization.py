"""Pixels that are normalised on the device are the bits that a transform would have made of them."""

from __future__ import annotations

import pytest
import torch
from torchvision import tv_tensors

from vgbench.batches.collate import collate
from vgbench.batches.synthetic import synthetic_sample
from vgbench.batches.transforms import IMAGENET_MEAN, IMAGENET_STD
from vgbench.config.compose import compose
from vgbench.training.setup import build_method
from vgbench.types import Batch, Normalization, Transform

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIZES = ((96, 128), (130, 70), (64, 64))


def tokenize(texts: object) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.zeros(len(texts), 4, dtype=torch.long)  # type: ignore[arg-type]
    return ids, ids == 1


@pytest.mark.parametrize(("mean", "std"), [(IMAGENET_MEAN, IMAGENET_STD), (CLIP_MEAN, CLIP_STD)])
def test_every_pixel_value_is_what_the_formula_says(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    import numpy as np

    values = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    offset, scale = (np.array(one, dtype=np.float32)[:, None] for one in (mean, std))
    table = (np.arange(256, dtype=np.float32) / np.float32(255) - offset) / scale
    assert np.array_equal(Normalization(mean, std)(values)[:, 0].numpy(), table)  # type: ignore[arg-type]


def test_around_the_picture_is_zero() -> None:
    image = torch.full((2, 3, 4, 6), 200, dtype=torch.uint8)
    content = torch.tensor([[1, 2, 3, 5], [0, 0, 4, 6]])
    result = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))(image, content)
    inside = torch.zeros(4, 6, dtype=torch.bool)
    inside[1:3, 2:5] = True
    assert bool((result[0][:, ~inside] == 0).all()) and bool((result[0][:, inside] != 0).all())
    assert bool((result[1] == result[0, 0, 1, 2]).all())
    elsewhere = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))(image.to("meta"), content.to("meta"))
    assert elsewhere.device.type == "meta", "it needs nothing but the device of the pixels"


@pytest.mark.parametrize("part", ["train", "eval"])
@pytest.mark.parametrize("name", ["alvg", "simvg", "resvg", "vglaw", "amc"])
def test_a_method_gets_the_same_batch(name: str, part: str) -> None:
    method = build_method(compose([f"method={name}", "dataset=refshapes", "weights=null"]).method)

    def batch(late: bool) -> Batch:
        transform: Transform = method.train_transform() if part == "train" else method.eval_transform()
        samples = []
        for number, size in enumerate(SIZES):
            sample = synthetic_sample(method, size, number)
            sample["image"] = tv_tensors.Image(torch.randint(0, 256, (3, *size), dtype=torch.uint8))
            sample["text"] = "the red circle"
            if late:
                sample["late_normalization"] = True
            torch.manual_seed(number)
            samples.append(transform(sample))
        torch.manual_seed(7)
        collated = collate(samples, tokenize)
        assert collated is not None
        return collated

    torch.manual_seed(0)
    now = batch(late=False)
    torch.manual_seed(0)
    later = batch(late=True)
    assert now.image.dtype == torch.float32 and later.image.dtype == torch.uint8
    arrived = later.to("cpu")
    assert arrived.normalization is None and arrived.content is None
    assert torch.equal(arrived.image, now.image) and torch.equal(arrived.boxes, now.boxes)
    assert torch.equal(arrived.to("cpu").image, now.image), "moving it again changes nothing"


def test_pictures_of_several_sizes_are_padded_with_zero() -> None:
    samples = []
    for number, size in enumerate(((8, 6), (4, 10))):
        image = torch.full((3, *size), 255, dtype=torch.uint8)
        boxes = tv_tensors.BoundingBoxes(torch.zeros(0, 4), format="XYXY", canvas_size=size)  # type: ignore[call-overload]
        samples.append(
            {
                "image": tv_tensors.Image(image),
                "boxes": boxes,
                "text": "x",
                "key": str(number),
                "geometry": None,
                "normalization": Normalization(IMAGENET_MEAN, IMAGENET_STD),
            }
        )
    batch = collate(samples, tokenize)  # type: ignore[arg-type]
    assert batch is not None and batch.image_pad is not None
    arrived = batch.to("cpu")
    assert arrived.image_pad is not None
    padded = arrived.image_pad[:, None].expand_as(arrived.image)
    assert bool((arrived.image[padded] == 0).all()) and bool((arrived.image[~padded] > 2).all())
