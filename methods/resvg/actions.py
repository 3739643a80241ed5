"""``vgbench data priors`` and ``vgbench data augment``, as the command line sees them."""

from __future__ import annotations

from vgbench.config.actions import Action, Arguments


def _priors(arguments: Arguments) -> int:
    """Make (or go on making) the prior of every expression of a dataset, with a diffusion model or as a sketch."""
    from vgbench.methods.resvg.commands import priors

    return priors(arguments.own, arguments.overrides)


def _augment(arguments: Arguments) -> int:
    """Write further training scenes: several instances of one category, and queries on their relations."""
    from vgbench.methods.resvg.commands import augmentation

    return augmentation(arguments.own, arguments.overrides)


ACTIONS = (
    Action(
        "priors",
        _priors,
        "dataset=refcoco data_root=data generator=sd-turbo encoder=clip-vit-base-patch32",
        keys=(
            *("generator", "encoder", "split", "extra_train", "out", "batch", "steps", "guidance", "size", "seed"),
            *("shard", "device"),
        ),
        usage="generator=... encoder=... [out=FILE]",
    ),
    Action(
        "augment",
        _augment,
        "dataset=refcoco data_root=data out=augmented amount=1000",
        keys=("out", "split", "amount", "seed", "painter", "instances", "counts"),
        usage="out=FOLDER [amount=1000]",
    ),
)
