"""The one runner: builds everything from the configuration and hands it to Lightning.

``run`` trains and evaluates, ``evaluate`` evaluates a checkpoint, ``predict`` grounds one expression in one image.
Each writes a run folder: config.yaml, record.json, predictions, checkpoints, curves, examples.
"""

from __future__ import annotations

import json
import logging
import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from omegaconf import DictConfig, OmegaConf

from vgbench import record as records
from vgbench import weights
from vgbench.checkpoints.names import LoadReport
from vgbench.core.errors import UserError
from vgbench.core.files import sha256_prefix, write_atomically
from vgbench.core.registry import methods
from vgbench.data.checks import BadSample
from vgbench.data.dataset import GroundingData
from vgbench.data.extra import Extra, joined
from vgbench.data.images import decode_image
from vgbench.data.leakage import SeenImages, exclude_leaked
from vgbench.data.table import AnnotationTable
from vgbench.evaluation import Evaluation, flat_metrics, split_results
from vgbench.loader import GroundingDataset, TrainBatches, collate, eval_loader, plain_sample, shuffled, train_loader
from vgbench.method import GroundingMethod
from vgbench.record import (
    FILE_NAME,
    METHOD_FILES,
    Checkpoint,
    Cost,
    Origin,
    Record,
    Result,
    Training,
    TrainingData,
    config_hash,
    environment,
    resolved,
)
from vgbench.score import ScoreReport, format_report
from vgbench.training import ExponentialMovingAverage, GroundingModule, KeepBestModel, Throughput

log = logging.getLogger(__name__)

# Which metrics a pair of method and dataset is scored with: the tasks that both have.
PRIMARY = ("rec", "grec", "phrase", "pointing", "res", "gres")


# Least values of the numbers that everything else is computed from; floats may be written as integers.
LEAST: dict[str, float | int] = {
    "recipe.lr": 0.0,
    "recipe.batch_size": 1,
    "recipe.epochs": 1,
    "recipe.accumulate": 1,
    "recipe.eval_every": 1,
    "eval.batch_size": 1,
    "eval.bootstrap": 0,
    "eval.examples": 0,
    "seed": 0,
}


# building ------------------------------------------------------------------------------------------------------


def check_numbers(config: DictConfig) -> None:
    """Look at :data:`LEAST` before anything is built.

    Raises:
        UserError: naming the key whose value is no number of its kind, or too small.
    """
    for key, least in LEAST.items():
        value = OmegaConf.select(config, key)
        kind = (int, float) if isinstance(least, float) else int
        if isinstance(value, bool) or not isinstance(value, kind) or value < least:
            what = "a number" if isinstance(least, float) else "a whole number"
            raise UserError(f"{key}={value}: give {what} of at least {least:g}")


def build_data(config: DictConfig) -> GroundingData:
    """The dataset of ``config.dataset``."""
    return instantiate(config.dataset)


def build_method(config: DictConfig | Mapping[str, Any]) -> GroundingMethod:
    """The method of ``config.method`` with its initial weights."""
    return instantiate(config)


def method_node(config: DictConfig) -> dict[str, Any]:
    """The resolved ``method`` node: what is stored beside weights."""
    node = OmegaConf.to_container(config.method, resolve=True)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def choices(config: DictConfig) -> dict[str, str]:
    """What was chosen in the groups: ``{"method": "alvg", "dataset": "refcoco", ...}``."""
    from hydra.core.hydra_config import HydraConfig

    node = HydraConfig.get() if HydraConfig.initialized() else config.hydra
    return dict(node.runtime.choices)


def shared_tasks(method: GroundingMethod, data: GroundingData, task: str | None) -> tuple[str, ...]:
    """The tasks to score.

    Raises:
        UserError: if method and dataset have none in common, or not the one asked for.
    """
    can = set(method.tasks) & ({*data.tasks, "pointing"} if "rec" in data.tasks else set(data.tasks))
    if "phrase" in data.tasks and "rec" in method.tasks:  # ranked boxes for a noun phrase
        can.add("phrase")
    if not method.wants_masks:
        can -= {"res", "gres"}
    tasks = tuple(name for name in PRIMARY if name in can)
    if task is not None:
        tasks = tuple(name for name in tasks if name == task)
    if not tasks:
        raise UserError(
            f"method {method.name} does {', '.join(sorted(method.tasks))}, dataset {data.name} offers "
            f"{', '.join(data.tasks)}{f', task={task} was asked for' if task else ''}: nothing in common"
        )
    return tasks


def process_rank() -> int:
    """Global rank of this process as its launcher (Lightning, torchrun, SLURM) told it, before anything is set up."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def run_folder(config: DictConfig, prefix: str) -> Path:
    """The run folder that all processes of a run agree on: process 0 makes or finds it, the others are told.

    Processes started by Lightning read it from the environment; those of torchrun or SLURM from a note under ``runs``.
    """
    launch = "-".join(os.environ.get(name, "") for name in ("SLURM_JOB_ID", "TORCHELASTIC_RUN_ID", "MASTER_PORT"))
    note = Path(config.runs) / f".launch{launch}"
    if process_rank() == 0:
        folder = _own_folder(config, prefix)
        os.environ["VGBENCH_RUN_FOLDER"] = str(folder)
        if launch.strip("-"):
            note.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(note, str(folder).encode())
        return folder
    if "VGBENCH_RUN_FOLDER" in os.environ:
        return Path(os.environ["VGBENCH_RUN_FOLDER"])
    deadline = time.monotonic() + 120
    while not (note.exists() and time.time() - note.stat().st_mtime < 600):
        if time.monotonic() > deadline:
            raise UserError(f"{note}: process 0 did not announce the run folder; is `runs` on a shared file system?")
        time.sleep(0.2)
    return Path(note.read_text())


def _own_folder(config: DictConfig, prefix: str) -> Path:
    """Make the folder of a new run, or find the one to resume.

    An existing run is never written over: a taken name gets a number. ``resume=true`` takes the newest folder of the
    same name whose configuration is the same.

    Raises:
        UserError: if there is nothing to resume.
    """
    node = resolved(config)
    base = Path(config.run_dir) if config.run_dir else Path(config.runs) / prefix
    wanted = config_hash(node)
    numbered = [base, *sorted(base.parent.glob(f"{base.name}-[0-9]*"), key=lambda path: (len(path.name), path.name))]
    if config.resume:
        for path in reversed(numbered):
            file = path / "config.yaml"
            if not file.exists():
                continue
            stored: Any = OmegaConf.to_container(OmegaConf.load(file))
            if config_hash(stored) == wanted and stored["seed"] == node["seed"]:
                return path
        raise UserError(
            f"resume=true, but no run folder {base}* has this configuration; start without resume, or give run_dir="
        )
    number = 1
    while True:
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            number += 1
    write_atomically(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(node)).encode())
    return folder


def start_weights(config: DictConfig, method: GroundingMethod) -> LoadReport | None:
    """Load ``weights`` (a whole model) or ``pretrained`` (parts), if given.

    Of a run folder or an official file with a moving average the raw weights are taken, as the authors' trainings do;
    the average of a run is the file ``model.safetensors`` in its folder.
    """
    if config.weights:
        spec, dataset = str(config.weights), choices(config)["dataset"]
        return weights.load(method, weights.resolve(spec, _method_name(method), dataset, raw=True), raw=True)
    if config.pretrained:
        path = Path(str(config.pretrained)).expanduser()
        if not path.exists():
            raise UserError(f"{path}: no such file; pretrained= must be the checkpoint that the recipe names")
        return method.load_pretrained(path)
    return None


def _history(config: DictConfig, method: GroundingMethod) -> tuple[list[TrainingData], SeenImages | None]:
    """Training data of the weights that a training starts from, and their images; None: a run of its own did not make
    them. Shipped weights have seen rendered images only, none of an evaluation split."""
    if not config.weights or weights.is_shipped(config.weights):
        return [], SeenImages(np.array([], dtype=str))
    folder = weights.run_folder(weights.resolve(str(config.weights), raw=True))
    if folder is None or (seen := SeenImages.read(folder)) is None:
        return [], None
    made = records.read(folder).training if (folder / FILE_NAME).exists() else None
    return ([*made.earlier, *made.data] if made else []), seen


def evaluation_splits(config: DictConfig, data: GroundingData) -> list[str]:
    """The splits that a run is scored on."""
    return list(config.eval.splits or [name for name in data.splits if name not in ("train", "pretrain")])


def _extra_train(config: DictConfig) -> list[Extra]:
    """The folders of ``recipe.extra_train``."""
    given = config.recipe.get("extra_train") or []
    return [Extra.open(Path(str(folder)).expanduser()) for folder in ([given] if isinstance(given, str) else given)]


def _training_data(table: AnnotationTable, dataset: str, split: str, split_by: str | None = None) -> TrainingData:
    return TrainingData(
        dataset=dataset,
        split=split,
        split_by=split_by,
        data_hash=table.hash,
        expressions=len(table),
        excluded_images=int(table.info.get("excluded_images", 0)),
    )


def workers(config: DictConfig) -> int:
    """Loader processes."""
    if config.workers == "auto":
        return min(8, (os.cpu_count() or 1) // 2)
    return int(config.workers)


def build_trainer(config: DictConfig, folder: Path, callbacks: Sequence[Callback], **options: Any) -> L.Trainer:
    """Lightning's trainer as the ``trainer`` and ``recipe`` nodes say."""
    _quiet()
    loggers: list[Any] = []
    if options.pop("logging", False):
        if config.logger.csv:
            loggers.append(CSVLogger(folder, name="", version="logs", flush_logs_every_n_steps=50))
        if config.logger.tensorboard:
            loggers.append(TensorBoardLogger(folder, name="", version="logs"))
    try:
        return L.Trainer(
            **{
                name: instantiate(value) if OmegaConf.is_config(value) else value
                for name, value in config.trainer.items()
            },
            max_epochs=config.recipe.epochs,
            logger=loggers or False,
            log_every_n_steps=config.logger.every_n_steps,
            callbacks=[*callbacks, *_progress()],
            default_root_dir=folder,
            use_distributed_sampler=False,
            enable_model_summary=False,
            enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
            **options,
        )
    except L.fabric.utilities.exceptions.MisconfigurationException as error:
        raise UserError(f"trainer: {error}; vgbench list shows the trainer choices") from None


def _progress() -> list[Callback]:
    return [RichProgressBar(refresh_rate=5, leave=False)] if sys.stderr.isatty() or sys.stdout.isatty() else []


def _quiet() -> None:
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # every process has scored all predictions
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*compiled.*is not supported.*", category=UserWarning)


# commands ------------------------------------------------------------------------------------------------------


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
    extras = _extra_train(config)
    if recipe.get("exclude_leaked"):
        scored_on = [data.load(name) for name in dict.fromkeys([recipe.val_split, *evaluation_splits(config, data)])]
        parts = [train_table, *(part.table for part in extras)]
        train_table, *clean = exclude_leaked(parts, scored_on, data.coco_of_vg())
        extras = [Extra(part.folder, table) for part, table in zip(extras, clean, strict=True)]
        _say(f"{data.name}: {train_table.info['excluded_images']:,} evaluation images left out of training")
    trained_on = [_training_data(train_table, data.name, recipe.train_split, getattr(data, "split_by", None))]
    if extras:
        trained_on += [_training_data(part.table, str(part.table.info["dataset"]), "train") for part in extras]
        train_table, train_image = joined(train_table, train_image, extras)
    val_table = data.load(recipe.val_split)
    method = build_method(config.method)
    tasks = shared_tasks(method, data, config.task)
    train_side = method.side_inputs(train_table)
    val_side = method.side_inputs(val_table)
    if train_side:  # what is missing for an evaluation is better known before the training than after
        for split in evaluation_splits(config, data):
            if split != recipe.val_split:
                method.side_inputs(data.load(split))
    folder = run_folder(config, f"{chosen['method']}-{chosen['dataset']}")
    resume_from = _newest_checkpoint(folder) if config.resume else None
    if resume_from:
        _set_log_aside(folder / "logs")
    report = None if resume_from else start_weights(config, method)
    _say(f"{folder}: {method.name} on {data.name}, {_count(method):,} parameters, {', '.join(tasks)}")
    if report:
        _say(f"start weights: {_loaded(report)}")
    earlier, seen_earlier = _history(config, method)
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
    val_loader = _eval_loader(config, trainer, method, data, val_table, val_side, pin)
    fit_started = time.perf_counter()
    trainer.fit(module, module.train_loader, val_loader, ckpt_path=resume_from, weights_only=False)
    fit_seconds = time.perf_counter() - fit_started
    if trainer.is_global_zero:
        _join_logs(folder / "logs")
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
    return _evaluate_and_record(
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
    folder = run_folder(config, f"eval-{_method_name(method)}-{choices(config)['dataset']}")
    _say(f"{folder}: {method.name} from {path}: {_loaded(report)}")
    ours = weights.method_config(path) is not None
    shipped = weights.is_shipped(config.checkpoint)
    origin: Origin = "shipped" if shipped else "trained here" if ours else "official"
    checkpoint = Checkpoint(path.name, sha256_prefix(path), origin)
    made_in = weights.run_folder(path)
    seen = SeenImages.read(made_in) if made_in else None
    return _evaluate_and_record(config, folder, method, data, tasks, started, checkpoint, seen=seen)


def export(config: DictConfig, file: Path, half: bool, slim: bool = False) -> int:
    """Write the model of ``checkpoint`` as one safetensors file that ``weights=`` and ``checkpoint=`` take.

    Args:
        half: store as float16.
        slim: leave out what only training needs.

    Raises:
        UserError: if the file has another ending or exists already.
    """
    if file.suffix != ".safetensors":
        raise UserError(f"{file}: a model is written as .safetensors; rename the file")
    if file.exists():
        raise UserError(f"{file}: exists already; remove it, or give another name")
    method, path, _ = checkpointed_method(config)
    state, left_out = weights.slim(method) if slim else (method.state_dict(), ())
    weights.save(state, checkpoint_node(config, path), file, half)
    without = f", without {', '.join(left_out)}" if left_out else ""
    count = sum(parameter.numel() for name, parameter in method.named_parameters() if name in state)
    print(f"{file}: {method.name}, {count:,} parameters{without}, {file.stat().st_size / 1e6:.2f} MB")
    return 0


def predict(image: Path, expression: str, config: DictConfig, output: Path | None) -> int:
    """Ground one expression in one image; draw it, print JSON.

    Raises:
        UserError: if the image cannot be read or there is no checkpoint.
    """
    from vgbench import render

    try:
        pixels = decode_image(image)
    except BadSample as error:
        raise UserError(str(error)) from None
    method, _, _ = checkpointed_method(config)
    device = torch.device("cuda" if torch.cuda.is_available() and config.trainer.accelerator != "cpu" else "cpu")
    method.to(device).eval()
    sample = plain_sample(pixels, expression)
    try:
        if side := method.side_inputs(_lone_table(image, pixels, expression)):
            sample["extra"] = {name: values[""] for name, values in side.items()}
    except UserError as error:
        print(f"note: grounded without {', '.join(method.extra_inputs)} ({error})", file=sys.stderr)
    batch = collate([method.eval_transform()(sample)], method.tokenize)
    assert batch is not None
    with torch.set_grad_enabled(method.requires_grad_at_inference):
        sets = {name: found[0] for name, found in method.predict(batch.to(device)).items()}
    for name, prediction in sets.items():
        target = output or image.with_name(f"{image.stem}.grounded.png")
        if name not in ("main", method.prediction_sets[0]):
            target = target.with_name(f"{target.stem}-{name}{target.suffix}")
        render.save(render.draw(pixels, expression, prediction=prediction), target)
        answer = {
            "image": str(image),
            "expression": expression,
            "method": method.name,
            "prediction_set": name,
            "boxes": [[round(value, 2) for value in box] for box in prediction.boxes.tolist()],
            "scores": [round(value, 4) for value in prediction.scores.tolist()],
            "no_target": prediction.no_target,
            "point": prediction.point,
            "mask": prediction.mask,
            "picture": str(target),
        }
        print(json.dumps(answer))
    return 0


def _lone_table(image: Path, pixels: torch.Tensor, expression: str) -> AnnotationTable:
    """One expression without a target, under the key ""."""
    lists: dict[str, list[Any]] = {name: [] for name in ("boxes", "masks", "polygons", "ann_ids", "categories")}
    place = {"image": image.name, "image_id": 0, "width": pixels.shape[-1], "height": pixels.shape[-2]}
    identity = {"key": "", "ref_id": None, "sent_id": None, "group": 0, "source": "predict", "split": "predict"}
    info = {"dataset": "predict", "split": "predict", "task": "rec", "sources": {}}
    return AnnotationTable.from_rows([{**place, **identity, **lists, "expression": expression}], info)


def checkpointed_method(config: DictConfig) -> tuple[GroundingMethod, Path, LoadReport]:
    """The method of ``checkpoint`` (see :func:`checkpoint_node`) with its weights.

    Raises:
        UserError: if there is no checkpoint, or it does not fit.
    """
    if not config.checkpoint:
        raise UserError("checkpoint= is missing: give a run folder, a checkpoint file, or checkpoint=shipped")
    chosen = choices(config)
    path = weights.resolve(str(config.checkpoint), chosen["method"], chosen["dataset"])
    method = build_method(checkpoint_node(config, path))
    return method, path, weights.load(method, path)


def _method_name(method: GroundingMethod) -> str:
    """The registered name; of a class that is not registered, the folder that it lives in, or its module."""
    parts = type(method).__module__.split(".")
    return methods.name_of(type(method)) or (parts[2] if parts[:2] == ["vgbench", "methods"] else parts[-1])


def _size(config: DictConfig, method: GroundingMethod) -> str:
    """The size that the chosen configuration is called after: "large" of ``method=alvg_large``, else empty."""
    chosen, own = choices(config)["method"], _method_name(method)
    return chosen.removeprefix(f"{own}_") if chosen.startswith(f"{own}_") else ""


def checkpoint_node(config: DictConfig, path: Path) -> dict[str, Any]:
    """The ``method`` node that builds the model in ``path``: the one stored in a file of ours, else ``config.method``.

    Over a stored node go the options of the command line (``method.branches=[token]``) and file paths that the recipe
    gives (tokenizer, vocabulary, proposals).
    """
    stored = weights.method_config(path)
    given = method_node(config)
    if stored is None or given["_target_"] != stored.get("_target_"):
        return stored or given
    files = {key for key in METHOD_FILES if given.get(key)}
    return stored | {key: given[key] for key in files | _explicit_options(config)}


def _explicit_options(config: DictConfig) -> set[str]:
    """Options of the method that the command line sets."""
    from hydra.core.hydra_config import HydraConfig

    node = HydraConfig.get() if HydraConfig.initialized() else config.hydra
    keys = (item.lstrip("+").partition("=")[0] for item in node.overrides.task)
    return {key.split(".")[1] for key in keys if key.startswith("method.")}


def _newest_checkpoint(folder: Path) -> Path:
    files = sorted((folder / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise UserError(f"{folder}: no checkpoint to resume from; start the run without resume=true")
    return files[-1]


def _set_log_aside(folder: Path) -> None:
    """Lightning starts metrics.csv afresh when a run is resumed; keep what the stopped run wrote."""
    log_file = folder / "metrics.csv"
    if process_rank() == 0 and log_file.exists():
        number = len(list(folder.glob("metrics.before*.csv"))) + 1
        log_file.rename(folder / f"metrics.before{number}.csv")


def _join_logs(folder: Path) -> None:
    """Put the logs of the stopped runs before the last one's; steps that were done again count once."""
    earlier = sorted(folder.glob("metrics.before*.csv"), key=lambda path: (len(path.name), path.name))
    if not earlier:
        return
    import pandas as pd

    last = folder / "metrics.csv"  # there is none if all training steps were done before
    *before, table = [
        pd.read_csv(path, float_precision="round_trip") for path in [*earlier, *([last] if last.exists() else [])]
    ]
    for part in reversed(before):
        table = pd.concat([part[part["step"] < table["step"].min()], table], ignore_index=True)
    write_atomically(folder / "metrics.csv", table.to_csv(index=False).encode())
    for path in earlier:
        path.unlink()


def _eval_loader(
    config: DictConfig,
    trainer: L.Trainer,
    method: GroundingMethod,
    data: GroundingData,
    table: AnnotationTable,
    side: Mapping[str, Mapping[str, torch.Tensor]],
    pin: bool,
    said: Sequence[int] | None = None,
) -> torch.utils.data.DataLoader:
    dataset = GroundingDataset(
        table,
        data.image_path,
        method.eval_transform(),
        masks=False,
        said=said,
        side=side,
        on_bad_sample=data.on_bad_sample,
    )
    return eval_loader(
        dataset, method, config.eval.batch_size, workers(config), trainer.global_rank, trainer.world_size, pin
    )


def _evaluate_and_record(
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
    from vgbench import measure, render

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
    set_rates: dict[str, list[float]] = {}
    for split in splits:
        table = data.load(split)
        if config.eval.limit:
            table = table.take(range(min(config.eval.limit, len(table))))
            notes.append(f"{split}: only the first {len(table)} expressions (eval.limit)")
        side = method.side_inputs(table)
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
                _eval_loader(config, trainer, method, data, table, side, pin, said),
                verbose=False,
            )
            reports = evaluation.finish(trainer, config.eval.bootstrap)
            if control:
                controls[control] = reports
        seconds, timed = seconds + evaluation.seconds, timed + evaluation.timed
        for name, rates in evaluation.set_rates.items():
            set_rates.setdefault(name, []).extend(rates)
        if evaluation.skipped:
            notes.append(f"{split}: {evaluation.skipped} images could not be read; their expressions count as wrong")
        if config.eval.shuffle_text:
            notes.append(f"{split}: scored on shuffled expressions (eval.shuffle_text=true)")
        if not trainer.is_global_zero:
            continue
        leaked = seen.among(table, data.coco_of_vg()) if seen else None
        if leaked:
            notes.append(f"{split}: {leaked} of its images are training images")
            _say(f"WARNING {data.name} {split}: {leaked} of its images are in the training data of this model")
        for name, report in reports.items():
            held = {control: scored[name] for control, scored in controls.items()}
            results += split_results(evaluation, name, report, held, folder, leaked)
            _say(
                f"\n{method.set_labels.get(name) or method.name + ('' if name == 'main' else f' / {name}')} on "
                f"{format_report(report)}"
            )
            for control, scored in held.items():
                _say(f"control, {control}: {scored.primary} {scored.values[scored.primary]:.2f} %")
        primary = flat_metrics(reports, method.prediction_sets)[evaluation.primary]
        if config.eval.examples:
            render.examples(
                folder / "examples" / split, table, data.image_path, evaluation.file, method, config.eval.examples
            )
    if not trainer.is_global_zero:
        return primary
    if (folder / "logs" / "metrics.csv").exists():
        render.curves(folder / "logs" / "metrics.csv", folder / "curves.png")
    node = resolved(config)
    entry = Record(
        method=_method_name(method),
        label=getattr(method, "title", method.name),
        set_labels=dict(method.set_labels),
        variant=str(getattr(method, "variant", "")) or _size(config, method),
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
            peak_memory_bytes=measure.peak_memory(),
            train_samples_per_s=train_rate,
            inference_samples_per_s=timed / seconds if seconds else None,
            set_samples_per_s={name: statistics.median(rates) for name, rates in set_rates.items()},
            parameters=_count(method),
            trainable_parameters=sum(parameter.numel() for parameter in method.trainable()),
            flops=measure.forward_flops(method, measure.synthetic_batch(method, 1).to(_device_of(method))),
        ),
    )
    records.write(entry, folder)
    _say(f"run folder: {folder} (record.json, predictions/, examples/{'' if training is None else ', curves.png'})")
    return primary


def _device_of(method: GroundingMethod) -> torch.device:
    return next(method.parameters()).device


def _count(method: GroundingMethod) -> int:
    return sum(parameter.numel() for parameter in method.parameters())


def _loaded(report: LoadReport) -> str:
    used, unused, adapted = (len(names) for names in (report.used, report.unused, report.adapted))
    lacks = f"; the file lacks {', '.join(report.absent)}: starts anew in training" if report.absent else ""
    return f"{used} tensors used, {unused} without effect, {adapted} adapted{lacks}"


def _say(text: str) -> None:
    if process_rank() == 0:
        print(text, flush=True)
