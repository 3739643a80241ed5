"""Train and evaluate: the list of what a run does."""

from __future__ import annotations

import time
from dataclasses import dataclass

import lightning as L
from omegaconf import DictConfig, open_dict

from vgbench.core.stop import current_request
from vgbench.method import GroundingMethod
from vgbench.training.checks import (
    as_list,
    check_machine,
    check_monitor,
    check_price,
    check_recipe_parts,
    check_splits,
    check_stress,
    check_training,
)
from vgbench.training.data import (
    TrainingSamples,
    TrainingSet,
    load_training_data,
    scored_splits,
    training_samples,
)
from vgbench.training.fit import fit
from vgbench.training.folder import continues, room_in, run_folder
from vgbench.training.logs import say
from vgbench.training.model import load_model
from vgbench.training.result import RunResult, write_record
from vgbench.training.score import score_splits
from vgbench.training.setup import (
    build_data,
    build_method,
    check_numbers,
    choices,
    load_summary,
    method_name,
    parameter_count,
    scored_variants,
    shared_tasks,
)
from vgbench.training.start import start_from


@dataclass(frozen=True)
class Preparation:
    """What a training needs, looked at: nothing of it will turn out to be missing later.

    Attributes:
        metrics: what is scored in the end, variants included.
        tasks: what validations score.
    """

    data: TrainingSet
    method: GroundingMethod
    tasks: tuple[str, ...]
    metrics: tuple[str, ...]
    samples: TrainingSamples


def prepare(config: DictConfig) -> Preparation:
    """Build what a training needs and look at everything that it will need at any time.

    Raises:
        UserError: for what is missing or does not fit.
    """
    check_numbers(config)
    check_machine(config)
    check_training(config)
    L.seed_everything(config.seed, workers=False, verbose=False)
    data = load_training_data(config)
    check_splits(config, data.dataset, training=True)
    check_stress(config)
    check_price(config)
    method = build_method(config.method)
    tasks = shared_tasks(method, data.dataset, config.task)
    variants = scored_variants(method, data.dataset, tasks, as_list(config.eval.variants))
    check_monitor(config, method, tasks)
    check_recipe_parts(config, method)
    for split in scored_splits(config, data.dataset):
        data.dataset.load(split)
    return Preparation(data, method, tasks, (*tasks, *variants), training_samples(config, method, data))


def run(config: DictConfig) -> RunResult:
    """Train, keep the best model, score it, write the run folder."""
    started = time.time()
    current_request().describe = lambda: "stopped; nothing was saved yet"
    name = f"{'smoke-' if config.smoke else ''}{choices(config)['method']}-{choices(config)['dataset']}"
    config.resume = continues(config, name)
    ready = prepare(config)
    method, data = ready.method, ready.data
    start = None if config.resume else start_from(config, method, data)  # a folder only for what can start
    folder = run_folder(config, name)
    start = start or start_from(config, method, data, folder)
    count = parameter_count(method)
    say(f"{folder}: {method.name} on {data.dataset.name}, {count:,} parameters, {', '.join(ready.tasks)}")
    if start.report:
        say(f"start weights: {load_summary(start.report)}")
    with room_in(folder, f"go on with resume=true run_dir={folder}"):
        model = fit(config, method, ready.samples, ready.tasks, folder, start)
        current_request().describe = lambda: "stopped after the training; resume=true goes on with the evaluation"
        scores = score_splits(config, model, data.dataset, ready.metrics, folder)
        return write_record(config, model, scores, folder, started)


def rehearse(config: DictConfig) -> None:
    """Everything of :func:`run` before the run folder is made.

    Raises:
        UserError: for what a run would need and does not find.
    """
    ready = prepare(config)
    if not config.resume:
        start_from(config, ready.method, ready.data)


def stress(config: DictConfig) -> RunResult:
    """Ask the model of ``checkpoint`` the questions of the probes of ``eval.stress`` (empty: the usual ones), of the
    first evaluation split unless ``eval.splits`` names others; write a run folder with these results alone."""
    with open_dict(config):
        config.eval.stress = as_list(config.eval.stress) or ["all"]
        config.eval.splits = config.eval.splits or [build_data(config).evaluation_splits[0]]
    return evaluate(config, stress_only=True)


def evaluate(config: DictConfig, *, stress_only: bool = False) -> RunResult:
    """Score the model of ``checkpoint``, write a run folder.

    Args:
        stress_only: only what probes make of the answers becomes a result (:func:`stress`).
    """
    started = time.time()
    current_request().describe = lambda: (
        "stopped in the evaluation; no record was written, start it again (with resume=true: answers of a language "
        "model are kept)"
    )
    check_numbers(config)
    check_machine(config)
    L.seed_everything(config.seed, workers=False, verbose=False)
    dataset = build_data(config)
    check_splits(config, dataset)
    check_stress(config)
    check_price(config)
    model, path, report = load_model(config)
    tasks = shared_tasks(model.method, dataset, config.task)
    metrics = [*tasks, *scored_variants(model.method, dataset, tasks, as_list(config.eval.variants))]
    kind = "stress" if stress_only else "eval"
    folder = run_folder(config, f"{kind}-{method_name(model.method)}-{choices(config)['dataset']}")
    origin = f" from {path}: {load_summary(report)}" if path else ", asked from a server"
    say(f"{folder}: {model.method.name}{origin}")
    with room_in(folder, "start it again"):
        scores = score_splits(config, model, dataset, metrics, folder, stress_only=stress_only)
        return write_record(config, model, scores, folder, started)
