"""From annotation table to batches: drawing expressions, decoding images, transforms, collation, samplers.

All randomness is a function of (seed, epoch, position): each item carries its own seed, so a run that was stopped in
the middle of an epoch continues with exactly the batches and augmentations that it would have had.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pycocotools import mask as rle
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import tv_tensors

from vgbench.core.errors import UserError
from vgbench.data.checks import BadSample
from vgbench.data.images import decode_image
from vgbench.data.table import AnnotationTable, Row
from vgbench.method import GroundingMethod
from vgbench.types import Batch, Sample, Transform

Item = tuple[int, int]  # (unit, seed)


def mix_seed(*values: int) -> int:
    """Non-negative 63-bit hash of integers (splitmix64 finaliser)."""
    state = 0x9E3779B97F4A7C15
    for value in values:
        state = (state + value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


class GroundingDataset(Dataset[Sample | str]):
    """Samples of one annotation table, ready for a method.

    Args:
        table: the expressions.
        image_path: image name of the table -> file.
        transform: the method's transform.
        sampling: "object": one unit per ``group`` of the table, one of its expressions drawn each time (official
            recipes of the SeqTR family); "expression": one unit per row.
        masks: decode the masks too.
        said: for each row, the row whose expression (and side inputs) it gets instead of its own (control experiments).
        side: per-expression inputs, name -> (key -> tensor).
        on_bad_sample: "error" raises a :class:`UserError`; "skip" returns the reason, which the collation counts.
    """

    def __init__(
        self,
        table: AnnotationTable,
        image_path: Callable[[str], Path],
        transform: Transform,
        *,
        sampling: Literal["object", "expression"] = "expression",
        masks: bool = True,
        said: Sequence[int] | np.ndarray | None = None,
        side: Mapping[str, Mapping[str, Tensor]] | None = None,
        on_bad_sample: Literal["error", "skip"] = "error",
    ) -> None:
        self.table = table
        self.image_path = image_path
        self.transform = transform
        self.masks = masks and table.has_masks
        self.said = said
        self.side = dict(side or {})
        self.on_bad_sample = on_bad_sample
        if sampling == "object":
            groups = table.column("group")
            self._order = np.argsort(groups, kind="stable")
            starts = np.flatnonzero(np.diff(groups[self._order], prepend=groups[:1] - 1))
            self._bounds = np.append(starts, len(table))
        else:
            self._order = np.arange(len(table))
            self._bounds = np.arange(len(table) + 1)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def rows(self, unit: int) -> np.ndarray:
        """Rows of the table that a unit's expression is drawn from."""
        return self._order[self._bounds[unit] : self._bounds[unit + 1]]

    def landscape(self) -> np.ndarray:
        """Per unit, whether the image is wider than high (the orientation groups of mmdetection's sampler)."""
        first = self._order[self._bounds[:-1]]
        return self.table.column("width")[first] > self.table.column("height")[first]

    def __getitem__(self, item: Item | int) -> Sample | str:
        unit, seed = item if isinstance(item, tuple) else (item, 0)
        generator = torch.default_generator
        state = generator.get_state()
        generator.manual_seed(seed)
        try:
            rows = self.rows(unit)
            index = int(rows[int(torch.randint(len(rows), ()))]) if len(rows) > 1 else int(rows[0])
            return self.transform(self.sample(index))
        except BadSample as error:
            if self.on_bad_sample == "error":
                raise UserError(f"{error}; mend the file, or set dataset.on_bad_sample=skip to leave it out") from None
            return str(error)
        finally:
            generator.set_state(state)

    def sample(self, index: int) -> Sample:
        """The untransformed sample of row ``index``."""
        row = self.table.row(index)
        image = decode_image(self.image_path(row.image))
        size = (image.shape[-2], image.shape[-1])
        if size != (row.height, row.width):
            raise BadSample(
                f"{self.image_path(row.image)}: image is {size[1]}x{size[0]}, "
                f"the annotation says {row.width}x{row.height}"
            )
        boxes = torch.from_numpy(np.ascontiguousarray(row.boxes)).float()
        said = row if self.said is None else self.table.row(int(self.said[index]))
        sample: Sample = {
            "image": tv_tensors.Image(image),
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),  # type: ignore[call-overload]
            "text": said.expression,
            "key": row.key,
            "image_id": row.image_id,
        }
        if self.masks:
            sample["masks"] = tv_tensors.Mask(_decode_masks(row))
        if self.side:
            sample["extra"] = {name: values[said.key] for name, values in self.side.items()}
        return sample


def plain_sample(image: Tensor, text: str, key: str = "") -> Sample:
    """A sample without targets, for prediction: uint8 RGB image [3, H, W] and an expression."""
    size = (image.shape[-2], image.shape[-1])
    boxes = tv_tensors.BoundingBoxes(torch.zeros(0, 4), format="XYXY", canvas_size=size)  # type: ignore[call-overload]
    return {"image": tv_tensors.Image(image), "boxes": boxes, "text": text, "key": key}


def _decode_masks(row: Row) -> Tensor:
    """uint8 [n, H, W]; all zero where a target has no mask."""
    if not row.masks:
        return torch.zeros(len(row.boxes), row.height, row.width, dtype=torch.uint8)
    encoded = [{"size": mask["size"], "counts": mask["counts"].encode()} for mask in row.masks]
    return torch.from_numpy(rle.decode(encoded)).permute(2, 0, 1).contiguous()


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
        extra={name: torch.stack([s["extra"][name] for s in good]) for name in good[0].get("extra", {})},
        geometry=[sample["geometry"] for sample in good],
        keys=[sample["key"] for sample in good],
        texts=[sample["text"] for sample in good],
        skipped=skipped,
        image_ids=[sample["image_id"] for sample in good if "image_id" in sample],
    )


class TrainBatches(Sampler[list[Item]]):
    """Batches of (unit, seed) for one process: shuffled per epoch, equal in number on every process.

    Args:
        landscape: orientation per unit, or None for no grouping. With it, batches hold one orientation only and each
            group is filled up to whole batches with random repeats (mmdetection's GroupSampler).
        drop_last: without grouping, leave out an incomplete last batch.
    """

    def __init__(
        self,
        units: int,
        batch_size: int,
        seed: int,
        *,
        landscape: np.ndarray | None = None,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if units == 0:
            raise UserError("the training split has no expressions")
        self.units, self.batch_size, self.seed = units, batch_size, seed
        self.landscape, self.drop_last = landscape, drop_last
        self.rank, self.world_size = rank, world_size
        self.epoch = 0
        self.start = 0  # batches of this epoch that are already done (set when resuming)
        self._length = len(self.batches(0))

    @property
    def sampler(self) -> TrainBatches:
        """Lightning sets the epoch on ``loader.batch_sampler.sampler``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def batches(self, epoch: int) -> list[np.ndarray]:
        """This process's batches of an epoch, as arrays of units."""
        random = np.random.default_rng([self.seed, epoch])
        groups = [np.arange(self.units)]
        if self.landscape is not None:
            groups = [
                group for group in (np.flatnonzero(self.landscape), np.flatnonzero(~self.landscape)) if len(group)
            ]
        batches: list[np.ndarray] = []
        for group in groups:
            order = random.permutation(group)
            if self.landscape is not None:
                missing = -len(order) % self.batch_size
                order = np.concatenate([order, random.choice(group, missing)])
            elif self.drop_last:
                order = order[: len(order) // self.batch_size * self.batch_size]
            batches += np.split(order, np.arange(self.batch_size, len(order), self.batch_size)) if len(order) else []
        if not batches:
            raise UserError(f"the training split has fewer units ({self.units}) than one batch ({self.batch_size})")
        batches = [batches[index] for index in random.permutation(len(batches))]
        batches += [batches[index] for index in random.choice(len(batches), -len(batches) % self.world_size)]
        return batches[self.rank :: self.world_size]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[Item]]:
        epoch, start = self.epoch, self.start
        for number, batch in enumerate(self.batches(epoch)):
            if number >= start:
                base = mix_seed(self.seed, epoch, number, self.rank)
                yield [(int(unit), mix_seed(base, position)) for position, unit in enumerate(batch)]


class EvalBatches(Sampler[list[Item]]):
    """Every unit exactly once over all processes, in table order."""

    def __init__(self, units: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        bounds = np.linspace(0, units, world_size + 1).astype(int)
        self.mine = range(bounds[rank], bounds[rank + 1])
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.mine) // self.batch_size)

    def __iter__(self) -> Iterator[list[Item]]:
        for start in range(0, len(self.mine), self.batch_size):
            yield [(unit, 0) for unit in self.mine[start : start + self.batch_size]]


class TrainLoader(DataLoader):
    """A loader that Lightning can save and resume in the middle of an epoch."""

    batches_done = 0  # of the current epoch; set by the training step

    @property
    def batches(self) -> TrainBatches:
        assert isinstance(self.batch_sampler, TrainBatches)
        return self.batch_sampler

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.batches.epoch, "batches_done": self.batches_done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.batches.epoch, self.batches.start = state["epoch"], state["batches_done"]
        if self.batches.start >= len(self.batches):
            self.batches.epoch, self.batches.start = state["epoch"] + 1, 0


def _loader_options(workers: int, method: GroundingMethod, pin_memory: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"num_workers": workers, "collate_fn": partial(collate, tokenize=method.tokenize)}
    options["pin_memory"] = pin_memory
    if workers:
        options["persistent_workers"] = True
        if sys.platform.startswith("linux"):
            options["multiprocessing_context"] = "fork"  # the model need not be picklable, the table stays shared
    return options


def train_loader(
    dataset: GroundingDataset, batches: TrainBatches, method: GroundingMethod, workers: int, pin_memory: bool = False
) -> TrainLoader:
    """Loader of training batches."""
    return TrainLoader(dataset, batch_sampler=batches, **_loader_options(workers, method, pin_memory))


def eval_loader(
    dataset: GroundingDataset,
    method: GroundingMethod,
    batch_size: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> DataLoader:
    """Loader of evaluation batches: every expression once, no duplicates to even out processes."""
    sampler = EvalBatches(len(dataset), batch_size, rank, world_size)
    return DataLoader(dataset, batch_sampler=sampler, **_loader_options(workers, method, pin_memory))


def shuffled(table: AnnotationTable, seed: int = 0) -> np.ndarray:
    """For each row another one, whose expression it gets: a control that a model which reads the text must fail.

    A random cyclic shift of a random order: no row keeps its own expression (texts may still coincide).
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(table))
    source = np.empty(len(table), dtype=np.int64)
    source[order] = np.roll(order, 1)
    return source
