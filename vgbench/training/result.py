"""What a run leaves behind: the record in its folder."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from vgbench.config.identity import config_hash, resolved
from vgbench.core.errors import UserError
from vgbench.method import GroundingMethod
from vgbench.records import store
from vgbench.records.environment import environment
from vgbench.records.record import Cost, Record
from vgbench.training.cost import forward_flops, latency, peak_memory
from vgbench.training.loggers import log_results
from vgbench.training.logs import say
from vgbench.training.model import TrainedModel
from vgbench.training.score import Scores
from vgbench.training.setup import method_name, parameter_count, size_name
from vgbench.training.speed import precision_notes
from vgbench.training.trainer import quiet
from vgbench.types import Batch

SMOKE_NOTE = "a smoke run: a few samples went through everything, its numbers mean nothing"


@dataclass(frozen=True)
class RunResult:
    """What a run made.

    Attributes:
        folder: the run folder.
        record: what stands in its record.json; None on every process but the first.
        primary: the number to look at first of the last split, in percent.
    """

    folder: Path
    record: Record | None
    primary: float


def write_record(config: DictConfig, model: TrainedModel, scores: Scores, folder: Path, started: float) -> RunResult:
    """Write the record, and the training curves if there was a training.

    Args:
        started: when the run began, in seconds as :func:`time.time` counts them.
    """
    primary = scores.splits[-1].primary if scores.splits else math.nan
    if not scores.whole:
        return RunResult(folder, None, primary)
    drawn = ", curves.png" if _draw_curves(folder) else ""
    node, method = resolved(config), model.method
    split_notes = [note for split in scores.splits for note in split.notes]
    record = Record(
        method=method_name(method),
        label=method.title or method.name,
        set_labels=dict(method.output_labels),
        variant=method.variant or size_name(config, method),
        config=node,
        config_hash=config_hash(node),
        environment=environment(),
        results=[result for split in scores.splits for result in split.results],
        seed=config.seed,
        checkpoint=model.checkpoint,
        training=model.training,
        notes=[
            *([SMOKE_NOTE] if config.smoke else []),
            *_price_notes(config, method),
            *(*model.notes, *split_notes, *method.notes(), *precision_notes(config)),
        ],
        cost=_cost(config, model, scores, started),
    )
    store.write(record, folder)
    with quiet():
        log_results(config, folder, record)
    say(f"run folder: {folder} (record.json, predictions/, examples/{drawn})")
    say(SMOKE_NOTE if config.smoke else f"next: vgbench compare {folder.parent}   (tables; --html PAGE: with pictures)")
    return RunResult(folder, record, primary)


def _cost(config: DictConfig, model: TrainedModel, scores: Scores, started: float) -> Cost:
    method = model.method
    usage = method.usage()
    price = config.eval.price if usage is not None else None
    timed = () if usage is not None and usage.reused else scores.splits  # answers from a file took no time
    seconds = sum(split.stopwatch.seconds for split in timed)
    samples = sum(split.stopwatch.samples for split in timed)
    rates: dict[str, list[float]] = {}
    for split in scores.splits:
        for output, values in split.stopwatch.output_rates.items():
            rates.setdefault(output, []).extend(values)
    single = _single_sample(method) if method.steady and not method.remote else None
    return Cost(
        wall_s=time.time() - started + model.earlier_s,
        peak_memory_bytes=None if method.remote else peak_memory(),
        train_samples_per_s=model.samples_per_s,
        inference_samples_per_s=samples / seconds if seconds else None,
        set_samples_per_s={output: statistics.median(values) for output, values in rates.items()},
        parameters=None if method.remote else parameter_count(method),
        trainable_parameters=None if method.remote else sum(parameter.numel() for parameter in method.trainable()),
        flops=forward_flops(method, single) if single else None,
        latency_s=latency(method, single) if single else None,
        prompt_tokens=usage.per_answer(usage.prompt_tokens) if usage else None,
        answer_tokens=usage.per_answer(usage.answer_tokens) if usage else None,
        answer_s=usage.per_answer(usage.seconds) if usage else None,
        prompt_price=float(price.input) if price else None,
        answer_price=float(price.output) if price else None,
    )


def _price_notes(config: DictConfig, method: GroundingMethod) -> list[str]:
    """What ``eval.price`` was, or why it says nothing here."""
    price, usage = config.eval.price, method.usage()
    if price is None:
        return []
    if usage is None or usage.prompt_tokens is None or usage.answer_tokens is None:
        return ["eval.price was given, but nobody counted tokens: there is no cost per expression"]
    return [f"price of tokens: {price.input:g} $ per million of questions, {price.output:g} $ of answers, as given"]


def _draw_curves(folder: Path) -> bool:
    """Draw the training curves, if there is a log; one that lost its lines with a killed process costs the picture."""
    from vgbench.pictures import curves

    log = folder / "logs" / "metrics.csv"
    if not log.exists():
        return False
    try:
        curves.curves(log, folder / "curves.png")
    except UserError as error:
        say(f"note: no curves.png; {error}")
        return False
    return True


def _single_sample(method: GroundingMethod) -> Batch:
    from vgbench.batches.synthetic import synthetic_batch

    return synthetic_batch(method, 1).to(next(method.parameters()).device)
