"""Train and evaluate: the list of what a run does."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from omegaconf import DictConfig

from vgbench.batches.samplers import TrainBatches, train_loader
from vgbench.batches.samples import GroundingDataset
from vgbench.core.files import sha256_prefix
from vgbench.data.extra import Extra, joined
from vgbench.data.leakage import SeenImages, exclude_leaked
from vgbench.records.record import Checkpoint, Origin, Training
from vgbench.training import weights
from vgbench.training.callbacks import ExponentialMovingAverage, KeepBestModel, Throughput
from vgbench.training.data import earlier_training, evaluation_loader, evaluation_splits, extra_train, training_data
from vgbench.training.evaluation import Evaluation
from vgbench.training.folder import newest_checkpoint, process_rank, run_folder, set_log_aside
from vgbench.training.logs import join_logs, say
from vgbench.training.module import GroundingModule
from vgbench.training.score import evaluate_and_record
from vgbench.training.setup import (
    build_data,
    build_method,
    check_numbers,
    checkpointed_method,
    choices,
    load_summary,
    method_name,
    method_node,
    parameter_count,
    shared_tasks,
    start_weights,
)
from vgbench.training.trainer import build_trainer, workers


def run(config: DictConfig) -> float:
    """Train, evaluate the best model, write the run folder. Returns the primary metric of the last split."""
    started = time.time()
    check_numbers(config)
    L.seed_everything(config.seed, workers=False, verbose=False)
    recipe = config.recipe
    chosen = choices(config)
    data = build_data(config)
    train_table = data.load(recipe.train_split)
    train_image: Callable[[str], Path] = data.image_path
    extras = extra_train(config)
    if recipe.get("exclude_leaked"):
        scored_on = [data.load(name) for name in dict.fromkeys([recipe.val_split, *evaluation_splits(config, data)])]
        parts = [train_table, *(part.table for part in extras)]
        train_table, *clean = exclude_leaked(parts, scored_on, data.coco_of_vg())
        extras = [Extra(part.folder, table) for part, table in zip(extras, clean, strict=True)]
        say(f"{data.name}: {train_table.info['excluded_images']:,} evaluation images left out of training")
    trained_on = [training_data(train_table, data.name, recipe.train_split, data.split_by)]
    if extras:
        trained_on += [training_data(part.table, str(part.table.info["dataset"]), "train") for part in extras]
        train_table, train_image = joined(train_table, train_image, extras)
    val_table = data.load(recipe.val_split)
    method = build_method(config.method)
    tasks = shared_tasks(method, data, config.task)
    train_side = method.auxiliary_inputs(train_table)
    val_side = method.auxiliary_inputs(val_table)
    if train_side:  # what is missing for an evaluation is better known before the training than after
        for split in evaluation_splits(config, data):
            if split != recipe.val_split:
                method.auxiliary_inputs(data.load(split))
    folder = run_folder(config, f"{chosen['method']}-{chosen['dataset']}")
    resume_from = newest_checkpoint(folder) if config.resume else None
    if resume_from:
        set_log_aside(folder / "logs")
    report = None if resume_from else start_weights(config, method)
    say(f"{folder}: {method.name} on {data.name}, {parameter_count(method):,} parameters, {', '.join(tasks)}")
    if report:
        say(f"start weights: {load_summary(report)}")
    earlier, seen_earlier = earlier_training(config, method)
    seen = SeenImages.of(train_table, data.coco_of_vg())
    seen = seen | seen_earlier if seen_earlier else SeenImages(seen.keys, complete=False)
    if process_rank() == 0:
        seen.save(folder)

    module = GroundingModule(method, config)
    module.val_set = Evaluation(
        method, data, recipe.val_split, val_table, folder / "validation", tasks, monitor=recipe.monitor
    )
    average = ExponentialMovingAverage(recipe.ema) if recipe.ema else None
    best = KeepBestModel(folder / weights.MODEL_FILE, method_node(config), average)
    throughput = Throughput()
    last = ModelCheckpoint(
        folder / "checkpoints", filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    callbacks: list[Callback] = [throughput, best, last]
    if config.checkpoint_every:
        callbacks.append(
            ModelCheckpoint(
                folder / "checkpoints",
                filename="step",
                every_n_train_steps=config.checkpoint_every,
                enable_version_counter=False,
            )
        )
    if average:
        callbacks.insert(0, average)
    trainer = build_trainer(
        config,
        folder,
        callbacks,
        logging=True,
        gradient_clip_val=recipe.clip_norm,
        accumulate_grad_batches=recipe.accumulate,
        check_val_every_n_epoch=recipe.eval_every,
        num_sanity_val_steps=0,
        inference_mode=not method.requires_grad_at_inference,
        limit_val_batches=1.0,
    )
    dataset = GroundingDataset(
        train_table,
        train_image,
        method.train_transform(),
        sampling=recipe.sampling,
        masks=method.wants_masks,
        side=train_side,
        on_bad_sample=data.on_bad_sample,
    )
    batches = TrainBatches(
        len(dataset),
        recipe.batch_size,
        config.seed,
        landscape=dataset.landscape() if recipe.group_by_orientation else None,
        drop_last=recipe.drop_last,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
    )
    pin = isinstance(trainer.accelerator, L.pytorch.accelerators.CUDAAccelerator)
    module.train_loader = train_loader(dataset, batches, method, workers(config), pin)
    if config.compile:
        method.compile()
    val_loader = evaluation_loader(config, trainer, method, data, val_table, val_side, pin)
    fit_started = time.perf_counter()
    trainer.fit(module, module.train_loader, val_loader, ckpt_path=resume_from, weights_only=False)
    fit_seconds = time.perf_counter() - fit_started
    if trainer.is_global_zero:
        join_logs(folder / "logs")
    if best.epoch < 0:
        best.save(trainer, module)
    trainer.strategy.barrier("model written")
    training = Training(
        data=trained_on,
        earlier=earlier,
        epochs=float(trainer.current_epoch),
        steps=trainer.global_step,
        batch=recipe.batch_size * recipe.accumulate * trainer.world_size,
        precision=str(config.trainer.precision),
        wall_s=fit_seconds,
        final_losses={
            name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("train/")
        },
    )
    checkpoint = Checkpoint(weights.MODEL_FILE, sha256_prefix(folder / weights.MODEL_FILE), "trained here")
    notes = [f"{module.skipped} training samples could not be read and were left out"] if module.skipped else []
    if config.weights:
        notes.append(f"started from weights={config.weights}")
    method = build_method(config.method)  # afresh: without the wrappers of compilation and sharding
    weights.load(method, folder / weights.MODEL_FILE)
    return evaluate_and_record(
        config,
        folder,
        method,
        data,
        tasks,
        started,
        checkpoint,
        training=training,
        train_rate=throughput.rate,
        notes=notes,
        seen=seen,
    )


def evaluate(config: DictConfig) -> float:
    """Evaluate ``checkpoint``, write a run folder. Returns the primary metric of the last split."""
    started = time.time()
    check_numbers(config)
    L.seed_everything(config.seed, workers=False, verbose=False)
    method, path, report = checkpointed_method(config)
    data = build_data(config)
    tasks = shared_tasks(method, data, config.task)
    folder = run_folder(config, f"eval-{method_name(method)}-{choices(config)['dataset']}")
    say(f"{folder}: {method.name} from {path}: {load_summary(report)}")
    ours = weights.method_config(path) is not None
    shipped = weights.is_shipped(config.checkpoint)
    origin: Origin = "shipped" if shipped else "trained here" if ours else "official"
    checkpoint = Checkpoint(path.name, sha256_prefix(path), origin)
    made_in = weights.run_folder(path)
    seen = SeenImages.read(made_in) if made_in else None
    return evaluate_and_record(config, folder, method, data, tasks, started, checkpoint, seen=seen)
