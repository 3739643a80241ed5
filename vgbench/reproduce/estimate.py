"""GPU hours of a run that has not been made."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import yaml

from vgbench.config.identity import method_identity
from vgbench.records.record import Record
from vgbench.reproduce.existing import first_difference, plain_config
from vgbench.reproduce.plan import Step


def estimate(step: Step, data: Any, known: Sequence[Record], splits: Sequence[str]) -> None:
    """GPU hours: samples over samples per second.

    The rate is the one that a run of the same method measured on a GPU, or follows from the FLOPs of the method and
    the sustained speed that ``configs/speed.yaml`` assumes. An optimiser step costs three forward passes.
    """
    if step.job.shipped:
        step.hours, step.basis = (0.0, None), ["evaluation of a small model on the CPU"]
        return
    sizes = [data.splits[split].expressions if split in data.splits else None for split in splits]
    evaluation = training = None
    if all(sizes):
        expressions = sum(size or 0 for size in sizes)
        rate, source = _rate(step, known, training=False)
        evaluation = expressions / rate / 3600
        step.basis.append(f"evaluation: {expressions:,} expressions / {rate:,.0f} per s ({source})")
    else:
        step.basis.append("evaluation: no estimate, the size of its splits is not published")
    if step.job.pretrained is not None:
        recipe, counts = step.config.recipe, data.splits.get(step.config.recipe.train_split)
        order = ("refs", "expressions") if recipe.sampling == "object" else ("expressions", "refs")
        published = [getattr(counts, name) for name in order] if counts else []
        one = step.job.epoch_samples or next((count for count in published if count), None)
        if one:
            rate, source = _rate(step, known, training=True)
            training = one * recipe.epochs / rate / 3600
            step.basis.append(f"training: {recipe.epochs} epochs x {one:,} samples / {rate:,.0f} per s ({source})")
    step.hours = evaluation, training


def _rate(step: Step, known: Sequence[Record], training: bool) -> tuple[float, str]:
    """Samples per second and where the number comes from."""
    ours = plain_config(step.config.method)
    for record in known:
        cost, gpu = record.cost, record.environment.hardware.gpu
        value = cost.train_samples_per_s if training else cost.inference_samples_per_s
        theirs = record.config.get("method") or {}
        if not gpu or not value or theirs.get("_target_") != ours["_target_"]:
            continue
        if first_difference(method_identity(ours), method_identity(theirs)) is None:
            return value, f"measured by {record.name} on {gpu}"
    speed = yaml.safe_load((files("vgbench.configs") / "speed.yaml").read_text("utf-8"))
    from vgbench.training.setup import choices

    gflops = speed["forward_gflops"][choices(step.config)["method"]]
    passes = 3 if training else 1
    rate = speed["sustained_tflops"] * 1e3 / (passes * gflops)
    return rate, f"assumed: {passes} x {gflops:g} GFLOPs at {speed['sustained_tflops']:g} TFLOP/s sustained"
