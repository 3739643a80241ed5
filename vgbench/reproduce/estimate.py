"""GPU hours of a run that has not been made."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import yaml

from vgbench.config.identity import method_identity
from vgbench.config.stored import stored_method
from vgbench.data.dataset import Counts, GroundingData
from vgbench.records.record import Record
from vgbench.reproduce.existing import first_difference, names_method, plain_config
from vgbench.reproduce.plan import Estimate, Job


def estimate(job: Job, config: Any, data: GroundingData, splits: Sequence[str], records: Sequence[Record]) -> Estimate:
    """GPU hours of a job: samples over samples per second.

    The rate is the one that a run of the same method measured on a GPU, else the one of ``configs/speed.yaml`` that was
    measured for the method (in the precision of the job, if there is one), else it follows from the FLOPs of the method
    and the sustained speed that the file assumes. An optimiser step costs three forward passes.

    Args:
        config: the composed configuration.
        splits: that are scored.
        records: runs whose measured rates count.
    """
    if job.shipped:
        return Estimate(0.0, None, ("evaluation of a small model on the CPU",))
    basis = []
    evaluation = training = None
    expressions = _expressions(data, splits)
    if expressions is None:
        basis.append("evaluation: no estimate, the size of its splits is not published")
    else:
        rate, source = _rate(config, records, training=False)
        evaluation = expressions / rate / 3600
        basis.append(f"evaluation: {expressions:,} expressions / {rate:,.0f} per s ({source})")
    samples = None if job.pretrained is None else _epoch_samples(job, config, data)
    if samples:
        epochs = config.recipe.epochs
        rate, source = _rate(config, records, training=True)
        training = samples * epochs / rate / 3600
        basis.append(f"training: {epochs} epochs x {samples:,} samples / {rate:,.0f} per s ({source})")
    return Estimate(evaluation, training, tuple(basis))


def _expressions(data: GroundingData, splits: Sequence[str]) -> int | None:
    """Published number of expressions in all splits together; None if one is not known."""
    counts = [data.splits.get(split, Counts()).expressions for split in splits]
    return None if None in counts else sum(count or 0 for count in counts)


def _epoch_samples(job: Job, config: Any, data: GroundingData) -> int | None:
    """Samples of a training epoch: objects or expressions, whichever the recipe draws and is published."""
    if job.epoch_samples:
        return job.epoch_samples
    counts = data.splits.get(config.recipe.train_split, Counts())
    if config.recipe.sampling == "object":
        return counts.refs or counts.expressions
    return counts.expressions or counts.refs


def _rate(config: Any, records: Sequence[Record], training: bool) -> tuple[float, str]:
    """Samples per second and where the number comes from."""
    from vgbench.training.setup import choices

    ours = plain_config(config.method)
    for record in records:
        cost, gpu = record.cost, record.environment.hardware.gpu
        value = cost.train_samples_per_s if training else cost.inference_samples_per_s
        if not gpu or not value or not names_method(record, ours["_target_"]):
            continue
        theirs = stored_method(record.config["method"], record.name)
        if first_difference(method_identity(ours), method_identity(theirs)) is None:
            return value, f"measured by {record.name} on {gpu}"
    speed = yaml.safe_load((files("vgbench.configs") / "speed.yaml").read_text("utf-8"))
    kind, precision = "train" if training else "inference", str(config.trainer.precision)
    rows = [row for row in speed["measured"] if row["method"] == choices(config)["method"] and kind in row]
    if rows:
        row = next((row for row in rows if row["precision"] == precision), rows[0])
        how = f"{row['precision']}, {'compiled' if row['compile'] else 'eager'}, batch {row['batch']}"
        return row[kind], f"measured on one {row['card']}, {how}: {speed['source']}"
    gflops = speed["forward_gflops"][choices(config)["method"]]
    passes = 3 if training else 1
    rate = speed["sustained_tflops"] * 1e3 / (passes * gflops)
    return rate, f"assumed: {passes} x {gflops:g} GFLOPs at {speed['sustained_tflops']:g} TFLOP/s sustained"
