"""A run on the Hugging Face Hub: its model, its record, and a model card that is made from the record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vgbench.core import hub
from vgbench.core.errors import UserError
from vgbench.core.registry import datasets, methods
from vgbench.metrics.tasks import task_of
from vgbench.records import store
from vgbench.records.record import FILE_NAME, Metric, Record, Result
from vgbench.records.schema import to_dict

MODEL = "model.safetensors"
SEEN = "train_images.parquet"
PLACES = frozenset({"data_root", "image_root", "cache_dir", "runs", "run_dir", "weights", "pretrained", "checkpoint"})


def push(folder: Path, repo: str, private: bool = False) -> str:
    """Send a run to ``repo`` ("hf://org/name"), in one commit; the repository is made if there is none.

    Paths of this machine are taken out of the record; predictions, pictures and logs stay here.

    Returns:
        the address of the commit.

    Raises:
        UserError: if the folder is no finished run with a model, the address is none, or the Hub refuses.
    """
    address = hub.Address.parse(repo)
    if address.kind != "model" or address.file or address.revision:
        raise UserError(f"{repo}: a run is pushed to hf://ORG/NAME")
    record = store.read(folder)
    if not (folder / MODEL).is_file():
        raise UserError(f"{folder}: has no {MODEL}; only a run that trained can be pushed")
    package = hub.hub()
    import json

    public = to_dict(record) | {"config": without_places(record.config, _file_options(record))}
    contents: dict[str, Path | bytes] = {
        "README.md": model_card(record, address.repo).encode(),
        FILE_NAME: json.dumps(public, indent=1).encode(),
        MODEL: folder / MODEL,
    }
    if (folder / SEEN).is_file():
        contents[SEEN] = folder / SEEN
    operations = [
        package.CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
        for name, content in contents.items()
    ]
    interface = package.HfApi()
    try:
        interface.create_repo(address.repo, private=private, exist_ok=True)
        done = interface.create_commit(address.repo, operations, commit_message=f"{record.name}, by vgbench")
    except (package.errors.HfHubHTTPError, package.errors.LocalTokenNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{repo}: the Hub refuses it ({reason}); set HF_TOKEN to a token that may write") from None
    return str(done.commit_url)


def without_places(node: Mapping[str, Any], options: frozenset[str] = frozenset()) -> dict[str, Any]:
    """A configuration in which paths of a machine are empty. ``options``: further keys that are paths."""
    return {
        key: without_places(value, options)
        if isinstance(value, Mapping)
        else None
        if key in PLACES | options and value not in (None, "shipped") and not hub.is_address(value)
        else value
        for key, value in node.items()
    }


def model_card(record: Record, repo: str) -> str:
    """A model card in Markdown: results with intervals as leaderboards read them, how it was made, licences."""
    package = hub.hub()
    label = " ".join(filter(None, (record.label or record.method, record.variant)))
    data = package.ModelCardData(
        library_name="vgbench",
        license="other",
        tags=["visual-grounding", "referring-expression", record.method],
        model_name=label,
        eval_results=[_published(package, result, name, metric) for result, name, metric in _headlines(record)],
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {label}",
        f"Visual grounding, measured with VGBench; {', '.join(_training_data(record)) or 'training data unknown'}.",
        "## Results\n\nPercent, with 95 % intervals over images.\n\n" + _table(record),
        '## Use\n\n```bash\npip install "vgbench[hub]"\n'
        f"vgbench eval method={record.method} checkpoint=hf://{repo} dataset=...\n"
        f'vgbench predict photo.jpg "the left cup" method={record.method} checkpoint=hf://{repo}\n```',
        "## How it was made\n\n" + "\n".join(f"- {line}" for line in _making(record)),
        "## Licences\n\n" + "\n".join(f"- {line}" for line in _licences(record)),
        *(["## Notes\n\n" + "\n".join(f"- {note}" for note in record.notes)] if record.notes else []),
    ]
    return "\n\n".join(parts) + "\n"


def _headlines(record: Record) -> list[tuple[Result, str, Metric]]:
    return [
        (result, name, metric)
        for result in record.results
        for name, metric in result.metrics.items()
        if name.partition(" ")[0] in task_of(result.task).headline and metric.value is not None
    ]


def _published(package: Any, result: Result, name: str, metric: Metric) -> Any:
    return package.EvalResult(
        task_type="visual-grounding",
        task_name=task_of(result.task).title,
        dataset_type=result.dataset,
        dataset_name=" ".join(filter(None, (result.dataset, result.split_by))),
        dataset_split=result.split,
        metric_type=name,
        metric_name=name if metric.variant == "default" else f"{name} ({metric.variant})",
        metric_value=round(metric.value or 0.0, 2),
    )


def _table(record: Record) -> str:
    lines = ["| data | split | task | metric | % | 95 % interval | n |", "|---|---|---|---|---:|:---:|---:|"]
    for result, name, metric in _headlines(record):
        data = " ".join(filter(None, (result.dataset, result.split_by)))
        output = "" if result.prediction_set == "main" else f" ({result.prediction_set})"
        interval = "" if metric.low is None or metric.high is None else f"{metric.low:.2f} to {metric.high:.2f}"
        where = f"{data} | {result.split} | {result.task}{output} | {name}"
        lines.append(f"| {where} | {metric.value:.2f} | {interval} | {metric.n} |")
    return "\n".join(lines)


def _training_data(record: Record) -> list[str]:
    if record.training is None:
        return []
    parts = [*record.training.earlier, *record.training.data]
    names = (" ".join(filter(None, (part.dataset, part.split_by, part.split))) for part in parts)
    return [f"trained on {name}" for name in dict.fromkeys(names)]


def _making(record: Record) -> list[str]:
    lines = [f"configuration {record.config_hash} (whole in {FILE_NAME}), seed {record.seed}"]
    training = record.training
    if training is not None:
        batch = f", batch {training.batch}" if training.batch else ""
        lines.append(f"{training.steps} steps in {training.epochs} epochs{batch}, {training.precision}")
    commit, machine = record.environment.code.commit, record.environment.hardware
    lines.append(f"{machine.gpu or machine.cpu}" + (f", commit {commit[:10]}" if commit else ""))
    leaks = {result.split: result.leaked_images for result in record.results if result.leaked_images}
    lines += [f"{count} evaluation images of {split} were trained on" for split, count in leaks.items()]
    return lines


def _licences(record: Record) -> list[str]:
    """What is known of the data; the weights' own licence is for their owner to state."""
    names = {result.dataset for result in record.results}
    names |= {part.dataset for part in (*record.training.earlier, *record.training.data)} if record.training else set()
    lines = ["of these weights: not stated; who pushes them must fill in `license` above"]
    for name in sorted(re.sub("@.*", "", name) for name in names):
        if name in datasets:
            data = datasets.load(name)
            lines.append(f"data, {data.title}: {data.licence} ({data.homepage})")
    return lines


def _file_options(record: Record) -> frozenset[str]:
    return frozenset(methods.load(record.method).file_options) if record.method in methods else frozenset()
