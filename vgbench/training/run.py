"""Train and evaluate: the list of what a run does."""

from __future__ import annotations

import time

import lightning as L
from omegaconf import DictConfig, open_dict

from vgbench.core.stop import current_request
from vgbench.training.checks import as_list, check_machine, check_monitor, check_splits, check_stress
from vgbench.training.data import load_training_data, training_samples
from vgbench.training.fit import fit
from vgbench.training.folder import run_folder
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


def run(config: DictConfig) -> RunResult:
    """Train, keep the best model, score it, write the run folder."""
    started = time.time()
    check_numbers(config)
    check_machine(config)
    L.seed_everything(config.seed, workers=False, verbose=False)
    data = load_training_data(config)
    check_splits(config, data.dataset, training=True)
    check_stress(config)
    method = build_method(config.method)
    tasks = shared_tasks(method, data.dataset, config.task)
    metrics = [*tasks, *scored_variants(method, data.dataset, tasks, as_list(config.eval.variants))]
    check_monitor(config, method, tasks)
    samples = training_samples(config, method, data)
    start = None if config.resume else start_from(config, method, data)  # a folder only for what can start
    folder = run_folder(config, f"{choices(config)['method']}-{choices(config)['dataset']}")
    start = start or start_from(config, method, data, folder)
    count = parameter_count(method)
    say(f"{folder}: {method.name} on {data.dataset.name}, {count:,} parameters, {', '.join(tasks)}")
    if start.report:
        say(f"start weights: {load_summary(start.report)}")
    model = fit(config, method, samples, tasks, folder, start)
    current_request().describe = lambda: "stopped after the training; resume=true goes on with the evaluation"
    scores = score_splits(config, model, data.dataset, metrics, folder)
    return write_record(config, model, scores, folder, started)


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
    model, path, report = load_model(config)
    tasks = shared_tasks(model.method, dataset, config.task)
    metrics = [*tasks, *scored_variants(model.method, dataset, tasks, as_list(config.eval.variants))]
    kind = "stress" if stress_only else "eval"
    folder = run_folder(config, f"{kind}-{method_name(model.method)}-{choices(config)['dataset']}")
    origin = f" from {path}: {load_summary(report)}" if path else ", asked from a server"
    say(f"{folder}: {model.method.name}{origin}")
    scores = score_splits(config, model, dataset, metrics, folder, stress_only=stress_only)
    return write_record(config, model, scores, folder, started)
