"""Sampling, decoding and collation: every draw is a function of (seed, epoch, position)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle
from torchvision.transforms import v2

from vgbench.batches.collate import collate
from vgbench.batches.samplers import EvalBatches, TrainBatches, TrainLoader, share
from vgbench.batches.samples import GroundingDataset, shuffled
from vgbench.batches.transforms import Normalize, Resize, resize_masks, swap_left_right
from vgbench.core.errors import UserError
from vgbench.data.table import AnnotationTable
from vgbench.methods.beit3.transforms import ClipBoxes


def make_table(folder: Path, sizes: list[tuple[int, int]], texts: list[list[str]]) -> AnnotationTable:
    """One object per image with its own expressions; the object covers the left half of the image."""
    rows: list[dict[str, Any]] = []
    for number, ((width, height), expressions) in enumerate(zip(sizes, texts, strict=True)):
        pixels = np.full((height, width, 3), 10 * number, np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        mask = np.zeros((height, width), np.uint8, order="F")
        mask[:, : width // 2] = 1
        for index, text in enumerate(expressions):
            rows.append(
                {
                    "key": f"{number}-{index}",
                    "image_id": number,
                    "image": f"{number}.png",
                    "width": width,
                    "height": height,
                    "expression": text,
                    "boxes": [[0, 0, width / 2, height]],
                    "masks": [rle.encode(mask)["counts"].decode()],
                    "polygons": [1],
                    "ann_ids": [number],
                    "categories": ["thing"],
                    "ref_id": number,
                    "sent_id": len(rows),
                    "group": number,
                    "source": "test",
                    "split": "train",
                }
            )
    return AnnotationTable.from_rows(rows, {"dataset": "test", "split": "train", "task": "rec", "sources": {}})


@pytest.fixture
def table(tmp_path: Path) -> AnnotationTable:
    return make_table(tmp_path, [(40, 20), (20, 40), (64, 32)], [["a", "b", "c"], ["d"], ["e", "f"]])


TRANSFORM = v2.Compose([ClipBoxes(), Resize((32, 32)), Normalize()])


def tokenize(texts: Any) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[ord(text[0])] for text in texts])
    return ids, torch.zeros_like(ids, dtype=torch.bool)


def test_object_sampling_draws_each_expression_equally_often(table: AnnotationTable, tmp_path: Path) -> None:
    dataset = GroundingDataset(table, lambda name: tmp_path / name, TRANSFORM, sampling="object")
    assert len(dataset) == 3
    drawn = Counter(dataset[0, seed]["text"] for seed in range(600))  # type: ignore[index,call-overload]
    assert set(drawn) == {"a", "b", "c"} and all(150 < count < 250 for count in drawn.values())
    by_expression = GroundingDataset(table, lambda name: tmp_path / name, TRANSFORM, sampling="expression")
    assert [by_expression[index]["text"] for index in range(6)] == list("abcdef")  # type: ignore[index]


def test_a_sample_does_not_touch_the_global_generator(table: AnnotationTable, tmp_path: Path) -> None:
    dataset = GroundingDataset(table, lambda name: tmp_path / name, TRANSFORM, sampling="object")
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    _ = dataset[0, 77]
    assert torch.equal(torch.rand(3), expected)


def test_boxes_and_masks_follow_the_image(table: AnnotationTable, tmp_path: Path) -> None:
    sample = GroundingDataset(table, lambda name: tmp_path / name, TRANSFORM)[0]
    assert isinstance(sample, dict)
    # 40 x 20 -> 32 x 32: the clipped box [0, 0, 20, 19] becomes [0, 0, 16, 30.4]
    assert torch.allclose(sample["boxes"].as_subclass(torch.Tensor), torch.tensor([[0.0, 0.0, 16.0, 30.4]]))
    assert sample["masks"].shape == (1, 32, 32) and int(sample["masks"][..., :16].sum()) == 512
    assert int(sample["masks"].sum()) == 512
    back = sample["geometry"].to_original(torch.tensor([[0.0, 0.0, 16.0, 32.0]]))
    assert torch.allclose(back, torch.tensor([[0.0, 0.0, 20.0, 20.0]]))


def test_collation_pads_targets(table: AnnotationTable, tmp_path: Path) -> None:
    dataset = GroundingDataset(table, lambda name: tmp_path / name, TRANSFORM)
    samples = [dataset[0], dataset[3]]
    samples[1]["boxes"] = samples[1]["boxes"][:0]  # type: ignore[index]
    samples[1]["masks"] = samples[1]["masks"][:0]  # type: ignore[index]
    batch = collate([*samples, "broken.jpg: image is missing"], tokenize)
    assert batch is not None
    assert batch.valid.tolist() == [[True], [False]] and batch.boxes.shape == (2, 1, 4)
    assert batch.masks is not None and int(batch.masks[1].sum()) == 0
    assert list(batch.keys) == ["0-0", "1-0"] and len(batch.skipped) == 1
    assert collate(["all bad"], tokenize) is None


def test_images_in_sizes_of_their_own_are_padded_to_the_largest(table: AnnotationTable, tmp_path: Path) -> None:
    samples = [GroundingDataset(table, lambda name: tmp_path / name, TRANSFORM)[index] for index in (0, 3)]
    for sample, (height, width) in zip(samples, ((2, 6), (4, 3)), strict=True):
        sample["image"] = torch.ones(3, height, width, dtype=torch.uint8)  # type: ignore[index]
        sample["masks"] = torch.ones(1, height, width, dtype=torch.uint8)  # type: ignore[index]
    batch = collate(samples, tokenize)
    assert batch is not None and batch.image.shape == (2, 3, 4, 6) and batch.image.dtype == torch.uint8
    assert batch.image_pad is not None and batch.masks is not None
    for index, (height, width) in enumerate(((2, 6), (4, 3))):
        assert int(batch.image[index].sum()) == 3 * height * width and not batch.image_pad[index, :height, :width].any()
        assert int((~batch.image_pad[index]).sum()) == int(batch.masks[index].sum()) == height * width


def test_batches_of_one_orientation_are_filled_up(table: AnnotationTable) -> None:
    orientation = np.array([True] * 7 + [False] * 5)
    sampler = TrainBatches(12, 4, seed=3, orientation=orientation)
    batches = [[number for number, _ in batch] for batch in sampler]
    assert len(batches) == len(sampler) == 4 and all(len(batch) == 4 for batch in batches)
    assert all(len({orientation[number] for number in batch}) == 1 for batch in batches)
    assert {number for batch in batches for number in batch} == set(range(12))


def test_epochs_differ_and_a_resumed_epoch_goes_on_where_it_was() -> None:
    sampler = TrainBatches(20, 4, seed=1)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert first != second
    resumed = TrainBatches(20, 4, seed=1)
    loader = TrainLoader(list(range(20)), batch_sampler=resumed)  # type: ignore[arg-type]
    loader.load_state_dict({"epoch": 1, "batches_done": 3})
    assert list(resumed) == second[3:]
    loader.load_state_dict({"epoch": 0, "batches_done": 5})
    assert list(resumed) == second


def test_processes_share_an_epoch() -> None:
    parts = [TrainBatches(26, 4, seed=5, rank=rank, world_size=2) for rank in range(2)]
    assert len(parts[0]) == len(parts[1]) == 4
    numbers = [number for part in parts for batch in part for number, _ in batch]
    assert set(numbers) == set(range(26))
    seeds = [seed for part in parts for batch in part for _, seed in batch]
    assert len(set(seeds)) == len(seeds)
    shares = [[number for batch in EvalBatches(range(11), 4, rank, 3) for number, _ in batch] for rank in range(3)]
    assert sorted(number for share in shares for number in share) == list(range(11))


def test_bad_images_are_named_or_counted(table: AnnotationTable, tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"not an image")
    (tmp_path / "2.png").unlink()
    strict = GroundingDataset(table, lambda name: tmp_path / name, TRANSFORM)
    with pytest.raises(UserError, match=r"1\.png: image cannot be decoded.*on_bad_sample=skip"):
        _ = strict[3]
    with pytest.raises(UserError, match=r"2\.png: image is missing"):
        _ = strict[4]
    lenient = GroundingDataset(table, lambda name: tmp_path / name, TRANSFORM, on_bad_sample="skip")
    batch = collate([lenient[index] for index in range(6)], tokenize)
    assert batch is not None and len(batch) == 3 and len(batch.skipped) == 3


def test_an_image_of_another_size_than_annotated_is_refused(table: AnnotationTable, tmp_path: Path) -> None:
    Image.new("RGB", (41, 20)).save(tmp_path / "0.png")
    with pytest.raises(UserError, match=r"41x20, the annotation says 40x20"):
        _ = GroundingDataset(table, lambda name: tmp_path / name, TRANSFORM)[0]


def test_grey_and_cmyk_images_become_rgb(table: AnnotationTable, tmp_path: Path) -> None:
    for mode in ("L", "CMYK"):
        Image.new(mode, (40, 20)).save(tmp_path / "0.png", "JPEG" if mode == "CMYK" else "PNG")
        sample = GroundingDataset(table, lambda name: tmp_path / name, TRANSFORM)[0]
        assert isinstance(sample, dict) and sample["image"].shape == (3, 32, 32)


def test_shuffled_expressions_move_every_row(table: AnnotationTable, tmp_path: Path) -> None:
    expression_rows = shuffled(table, seed=4)
    assert sorted(expression_rows.tolist()) == list(range(len(table)))
    assert all(new != old for old, new in enumerate(expression_rows))
    assert expression_rows.tolist() == shuffled(table, seed=4).tolist()

    Image.new("RGB", (40, 20)).save(tmp_path / "0.png")
    auxiliary = {"prior": {row.key: torch.full((2,), float(number)) for number, row in enumerate(table)}}
    dataset = GroundingDataset(
        table, lambda name: tmp_path / "0.png", TRANSFORM, expression_rows=expression_rows, auxiliary=auxiliary
    )
    sample = dataset.sample(2)
    assert sample["key"] == table.row(2).key and sample["text"] == table.row(int(expression_rows[2])).expression
    assert sample["auxiliary"]["prior"].tolist() == [expression_rows[2]] * 2, "what goes with the words moves with them"


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("left man", "right man"),
        ("bright RIGHT light, copyright", "bright LEFT light, copyright"),
        ("Left-most; the right's", "Right-most; the left's"),
        ("leftmost", "leftmost"),
        ("upright on the left_side", "upright on the left_side"[:-9] + "right_side"),
    ],
)
def test_flipping_swaps_whole_words_only(text: str, swapped: str) -> None:
    assert swap_left_right(text) == swapped


def test_masks_are_resized_by_floor() -> None:
    mask = torch.arange(5, dtype=torch.uint8)[None, None].expand(1, 5, 5)
    # floor(target * 5 / 3) = 0, 1, 3
    assert resize_masks(mask, (3, 3))[0, 0].tolist() == [0, 1, 3]


def test_normalisation_and_mask_resizing_are_exact() -> None:
    """Tables and OpenCV compute what the formulas say, bit by bit."""
    from torchvision import tv_tensors

    from vgbench.batches import transforms

    image = torch.randint(0, 256, (3, 37, 41), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (transforms.IMAGENET_MEAN, transforms.IMAGENET_STD))
    for pixels in (image, image.flip(-1), image.permute(0, 2, 1)):
        ours = transforms.Normalize()(tv_tensors.Image(pixels)).as_subclass(torch.Tensor)
        assert torch.equal(ours, (pixels.float() / 255 - mean) / std)
    masks = torch.randint(0, 2, (2, 48, 64), dtype=torch.uint8)
    for height, width in ((64, 64), (33, 44), (1, 1), (47, 13)):
        rows, columns = torch.arange(height) * 48 // height, torch.arange(width) * 64 // width
        assert torch.equal(transforms.resize_masks(masks, (height, width)), masks[..., rows, :][..., columns])
    assert transforms.resize_masks(masks[:0], (5, 5)).shape == (0, 5, 5)


def test_expressions_of_an_image_are_evaluated_in_one_batch() -> None:
    images = [7, 3, 7, 3, 5, 7, 9, 9, 9, 9, 9, 9, 9]  # 9 has more than a batch holds
    batches = [[number for number, _ in batch] for batch in EvalBatches(images, 5)]
    assert batches == [[0, 2, 5, 1, 3], [4], [6, 7, 8, 9, 10], [11, 12]]
    shares = [[number for batch in EvalBatches(images, 5, rank, 2) for number, _ in batch] for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == list(range(13))
    assert not {images[number] for number in shares[0]} & {images[number] for number in shares[1]}
    assert list(EvalBatches([], 4)) == [] and sum(len(share([1], rank, 2)) for rank in range(2)) == 1


def test_a_split_smaller_than_a_batch_names_the_key():
    with pytest.raises(UserError, match=r"recipe\.batch_size=4: the training split has 3 samples an epoch, less than"):
        TrainBatches(3, 4, seed=0, drop_last=True)
