"""Score every split; predictions, pictures and the record."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
from omegaconf import DictConfig

from vgbench.batches.samples import shuffled
from vgbench.config.identity import config_hash, resolved
from vgbench.data.dataset import GroundingData
from vgbench.data.leakage import SeenImages
from vgbench.method import GroundingMethod
from vgbench.metrics.evaluator import ScoreReport, flat_metrics, format_report
from vgbench.records import store
from vgbench.records.environment import environment
from vgbench.records.record import Checkpoint, Cost, Record, Result, Training
from vgbench.records.results import split_results
from vgbench.training.data import evaluation_loader, evaluation_splits
from vgbench.training.evaluation import Evaluation
from vgbench.training.logs import say
from vgbench.training.module import GroundingModule
from vgbench.training.setup import method_name, parameter_count, size_name
from vgbench.training.trainer import build_trainer


def evaluate_and_record(
    config: DictConfig,
    folder: Path,
    method: GroundingMethod,
    data: GroundingData,
    tasks: Sequence[str],
    started: float,
    checkpoint: Checkpoint,
    training: Training | None = None,
    train_rate: float | None = None,
    notes: Sequence[str] = (),
    seen: SeenImages | None = None,
) -> float:
    """Score every split, write predictions, pictures and the record."""
    from vgbench.batches.synthetic import synthetic_batch
    from vgbench.pictures import curves, examples
    from vgbench.training.cost import forward_flops, peak_memory

    splits = evaluation_splits(config, data)
    control_splits = set(config.eval.control or [])
    variants = list(config.eval.variants)  # those of tasks that a prediction set is not scored on are left out there
    module = GroundingModule(method, config)
    trainer = build_trainer(config, folder, [], inference_mode=not method.requires_grad_at_inference)
    pin = isinstance(trainer.accelerator, L.pytorch.accelerators.CUDAAccelerator)
    notes = list(notes)
    results: list[Result] = []
    primary = math.nan
    seconds, timed = 0.0, 0
    output_rates: dict[str, list[float]] = {}
    for split in splits:
        table = data.load(split)
        if config.eval.limit:
            table = table.take(range(min(config.eval.limit, len(table))))
            notes.append(f"{split}: only the first {len(table)} expressions (eval.limit)")
        side = method.auxiliary_inputs(table)
        passes: list[tuple[str, Sequence[int] | None]] = []
        if split in control_splits:
            passes.append(("shuffled text", shuffled(table, config.seed).tolist()))
        passes.append(("", shuffled(table, config.seed).tolist() if config.eval.shuffle_text else None))
        controls: dict[str, dict[str, ScoreReport]] = {}
        for control, said in passes:
            place = folder / "predictions" / control.replace(" ", "-") if control else folder / "predictions"
            evaluation = Evaluation(method, data, split, table, place, tasks, variants)
            module.evaluation = evaluation
            evaluation.start(trainer.global_rank)
            trainer.test(
                module,
                evaluation_loader(config, trainer, method, data, table, side, pin, said),
                verbose=False,
            )
            reports = evaluation.finish(trainer, config.eval.bootstrap)
            if control:
                controls[control] = reports
        seconds, timed = seconds + evaluation.seconds, timed + evaluation.timed
        for name, rates in evaluation.output_rates.items():
            output_rates.setdefault(name, []).extend(rates)
        if evaluation.skipped:
            notes.append(f"{split}: {evaluation.skipped} images could not be read; their expressions count as wrong")
        if config.eval.shuffle_text:
            notes.append(f"{split}: scored on shuffled expressions (eval.shuffle_text=true)")
        if not trainer.is_global_zero:
            continue
        leaked = seen.among(table, data.coco_of_vg()) if seen else None
        if leaked:
            notes.append(f"{split}: {leaked} of its images are training images")
            say(f"WARNING {data.name} {split}: {leaked} of its images are in the training data of this model")
        for name, report in reports.items():
            held = {control: scored[name] for control, scored in controls.items()}
            results += split_results(evaluation, name, report, held, folder, leaked)
            say(
                f"\n{method.output_labels.get(name) or method.name + ('' if name == 'main' else f' / {name}')} on "
                f"{format_report(report)}"
            )
            for control, scored in held.items():
                say(f"control, {control}: {scored.primary} {scored.values[scored.primary]:.2f} %")
        primary = flat_metrics(reports, method.outputs)[evaluation.primary]
        if config.eval.examples:
            examples.examples(
                folder / "examples" / split, table, data.image_path, evaluation.file, method, config.eval.examples
            )
    if not trainer.is_global_zero:
        return primary
    if (folder / "logs" / "metrics.csv").exists():
        curves.curves(folder / "logs" / "metrics.csv", folder / "curves.png")
    node = resolved(config)
    entry = Record(
        method=method_name(method),
        label=method.title or method.name,
        set_labels=dict(method.output_labels),
        variant=method.variant or size_name(config, method),
        config=node,
        config_hash=config_hash(node),
        environment=environment(),
        results=results,
        seed=config.seed,
        checkpoint=checkpoint,
        training=training,
        notes=[*notes, *method.notes()],
        cost=Cost(
            wall_s=time.time() - started,
            peak_memory_bytes=peak_memory(),
            train_samples_per_s=train_rate,
            inference_samples_per_s=timed / seconds if seconds else None,
            set_samples_per_s={name: statistics.median(rates) for name, rates in output_rates.items()},
            parameters=parameter_count(method),
            trainable_parameters=sum(parameter.numel() for parameter in method.trainable()),
            flops=forward_flops(method, synthetic_batch(method, 1).to(_device_of(method))),
        ),
    )
    store.write(entry, folder)
    say(f"run folder: {folder} (record.json, predictions/, examples/{'' if training is None else ', curves.png'})")
    return primary


def _device_of(method: GroundingMethod) -> torch.device:
    return next(method.parameters()).device
