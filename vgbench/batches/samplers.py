"""Which expression comes when: batches for training and evaluation, and their loaders."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Sampler

from vgbench.batches.collate import collate
from vgbench.batches.samples import GroundingDataset, Item, mix_seed
from vgbench.core.errors import UserError
from vgbench.method import GroundingMethod


class TrainBatches(Sampler[list[Item]]):
    """Batches of (object, seed) for one process: shuffled per epoch, equal in number on every process.

    Args:
        objects: how many there are to draw from: objects, or expressions (``GroundingDataset.sampling``).
        batch_size: of this process.
        seed: of the order and of what the transforms draw.
        orientation: per object, whether its image is wider than high, or None for no grouping. With it, batches hold
            one orientation only and each group is filled up to whole batches with random repeats (mmdetection's
            GroupSampler).
        drop_last: without grouping, leave out an incomplete last batch.
        rank, world_size: this process and how many there are.

    Raises:
        UserError: if there are no objects, or fewer than one batch.
    """

    def __init__(
        self,
        objects: int,
        batch_size: int,
        seed: int,
        *,
        orientation: np.ndarray | None = None,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if objects == 0:
            raise UserError("the training split has no expressions")
        self.objects, self.batch_size, self.seed = objects, batch_size, seed
        self.orientation, self.drop_last = orientation, drop_last
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
        """This process's batches of an epoch, as arrays of object numbers."""
        random = np.random.default_rng([self.seed, epoch])
        groups = [np.arange(self.objects)]
        if self.orientation is not None:
            groups = [
                group for group in (np.flatnonzero(self.orientation), np.flatnonzero(~self.orientation)) if len(group)
            ]
        batches: list[np.ndarray] = []
        for group in groups:
            order = random.permutation(group)
            if self.orientation is not None:
                missing = -len(order) % self.batch_size
                order = np.concatenate([order, random.choice(group, missing)])
            elif self.drop_last:
                order = order[: len(order) // self.batch_size * self.batch_size]
            batches += np.split(order, np.arange(self.batch_size, len(order), self.batch_size)) if len(order) else []
        if not batches:
            raise UserError(
                f"recipe.batch_size={self.batch_size}: the training split has {self.objects} samples an epoch, less "
                "than one batch; give a smaller one"
            )
        batches = [batches[index] for index in random.permutation(len(batches))]
        batches += [batches[index] for index in random.choice(len(batches), -len(batches) % self.world_size)]
        return batches[self.rank :: self.world_size]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[list[Item]]:
        epoch, start = self.epoch, self.start
        for batch_number, batch in enumerate(self.batches(epoch)):
            if batch_number >= start:
                base = mix_seed(self.seed, epoch, batch_number, self.rank)
                yield [(int(number), mix_seed(base, position)) for position, number in enumerate(batch)]


def share(images: Sequence[int] | np.ndarray, rank: int, world_size: int) -> list[np.ndarray]:
    """The expressions of one process, image by image: every one on exactly one process; none if there are too few.

    Args:
        images: of every expression, a number that tells its image from others, [n].
        rank, world_size: this process and how many there are.

    Returns:
        Numbers of expressions, an array for each image. Images come in the order of the table.
    """
    _, first, image, counts = np.unique(images, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first[image], kind="stable")
    sizes = counts[np.argsort(first)]
    starts = np.cumsum(sizes) - sizes
    begin, end = np.linspace(0, len(order), world_size + 1).astype(int)[rank : rank + 2]
    return [order[start : start + size] for start, size in zip(starts, sizes, strict=True) if begin <= start < end]


class EvalBatches(Sampler[list[Item]]):
    """The :func:`share` of a process in batches: no duplicates to even out processes.

    The expressions of an image stand in one batch if they fit: whichever loader process gets it decodes it once.
    A process without a share gets the first expression, because all have to take part; nothing of it is counted
    (:meth:`vgbench.training.evaluation.Evaluation.add`).

    Args:
        images, rank, world_size: see :func:`share`.
        batch_size: at most so many expressions per batch.
    """

    def __init__(self, images: Sequence[int] | np.ndarray, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self._batches: list[list[int]] = []
        batch: list[int] = []
        for expressions in share(images, rank, world_size) or [np.arange(min(1, len(images)))]:
            if batch and len(batch) + len(expressions) > batch_size:
                self._batches.append(batch)
                batch = []
            batch = [*batch, *expressions.tolist()]
            while len(batch) > batch_size:
                self._batches.append(batch[:batch_size])
                batch = batch[batch_size:]
        if batch:
            self._batches.append(batch)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Item]]:
        for batch in self._batches:
            yield [(number, 0) for number in batch]


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
    dataset: GroundingDataset, batches: EvalBatches, method: GroundingMethod, workers: int, pin_memory: bool = False
) -> DataLoader:
    """Loader of evaluation batches."""
    return DataLoader(dataset, batch_sampler=batches, **_loader_options(workers, method, pin_memory))
