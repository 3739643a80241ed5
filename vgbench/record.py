"""The record of a run: what was measured, on what, with what, and how to get it again. One run folder, one file.

``record.json`` is the archive of the suite: leaderboards, the page and the significance tests are made from records
alone. The schema is the dataclasses below (a table of it is in ``leaderboards/README.md``); it has a version, it is
validated on reading, and a record of a newer version is refused rather than half understood.

Values of metrics are in percent unless the metric's name says otherwise; times are seconds, memory is bytes.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from vgbench.core.errors import UserError
from vgbench.core.files import write_atomically

SCHEMA_VERSION = 1


FILE_NAME = "record.json"


Provenance = Literal["measured", "external", "published"]


Origin = Literal["official", "trained here", "shipped", "external"]


@dataclass
class Metric:
    """One number. ``value`` is None where the metric is not defined (N-acc of a split without no-target expressions).

    Attributes:
        value: in percent.
        n: expressions that it was computed on.
        low, high: 95 % interval, bootstrap clustered by image; None if it was not computed.
        variant: which definition ("default", or a named variant of the metric); different variants are never compared.
    """

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None
    variant: str = "default"


@dataclass
class Result:
    """The metrics of one prediction set on one split.

    Attributes:
        dataset, split_by, split: e.g. ("refcocog", "umd", "val"); ``split_by`` is None where there is only one.
        embedded: the data is rendered by the suite; never shown in a table with real data.
        task: rec, res, grec, gres, pointing or phrase.
        data_hash: of the annotation table that was scored.
        expressions, images: of that table. ``expected_expressions``: the published count of the split, if there is one.
        prediction_set: which output of the method ("main"; SimVG "decoder" and "token").
        metrics: by name.
        controls: by control (e.g. "shuffled text"), then by name: what the same checkpoint scores when it is cheated.
        slices: by metric, slicing rule and bucket, e.g. slices["prec@0.5"]["expression length"]["1-3 words"].
        leaked_images: images of this split that the model was trained on; None where nobody knows.
        resolution: the frame that masks and boxes were scored in ("original", "480x480", ...).
        predictions: file of the per-expression predictions, relative to the run folder.
    """

    dataset: str
    split: str
    task: str
    data_hash: str
    expressions: int
    images: int
    metrics: dict[str, Metric]
    split_by: str | None = None
    embedded: bool = False
    prediction_set: str = "main"
    controls: dict[str, dict[str, Metric]] = field(default_factory=dict)
    slices: dict[str, dict[str, dict[str, Metric]]] = field(default_factory=dict)
    expected_expressions: int | None = None
    leaked_images: int | None = None
    resolution: str = "original"
    predictions: str | None = None


@dataclass
class Checkpoint:
    """The weights that were scored: file name (no folder), first 16 hex digits of its SHA-256, who made it."""

    name: str
    sha256: str
    origin: Origin


@dataclass
class TrainingData:
    """One training split. ``excluded_images``: left out because they are in an evaluation split."""

    dataset: str
    split: str
    data_hash: str | None = None
    split_by: str | None = None
    expressions: int | None = None
    excluded_images: int = 0


@dataclass
class Training:
    """How the weights were made, where this run made them. ``batch`` is the effective batch of one optimiser step.

    ``earlier``: training data of the weights that it started from, as far as their run folders tell.
    """

    data: list[TrainingData] = field(default_factory=list)
    earlier: list[TrainingData] = field(default_factory=list)
    epochs: float | None = None
    steps: int | None = None
    batch: int | None = None
    precision: str | None = None
    wall_s: float | None = None
    final_losses: dict[str, float] = field(default_factory=dict)


@dataclass
class Code:
    """The commit of the suite; ``commit`` is None for an installed wheel, whose version is among the packages."""

    commit: str | None = None
    dirty: bool = False


@dataclass
class Hardware:
    cpu: str
    cores: int
    memory_bytes: int | None = None
    gpu: str | None = None
    gpus: int = 0


@dataclass
class Environment:
    python: str
    platform: str
    packages: dict[str, str]
    code: Code
    hardware: Hardware


@dataclass
class Cost:
    """What it took. Throughput is in samples (image and expression) per second; FLOPs are of one forward pass.

    ``set_samples_per_s``: inference throughput of each prediction set alone, where there are several.
    """

    wall_s: float | None = None
    peak_memory_bytes: int | None = None
    train_samples_per_s: float | None = None
    inference_samples_per_s: float | None = None
    set_samples_per_s: dict[str, float] = field(default_factory=dict)
    parameters: int | None = None
    trainable_parameters: int | None = None
    flops: float | None = None


@dataclass
class Record:
    """One run.

    Attributes:
        method: registered name; ``label`` is how tables print it.
        set_labels: how tables print single prediction sets, e.g. {"token": "SimVG-TB"}.
        variant: size or flavour ("tiny", "base", "large"); empty if there is only one.
        provenance: "measured" by this suite, "external" (predictions made elsewhere, scored here), or "published".
        config, config_hash: as resolved, and :func:`config_hash` of it.
        created: UTC, ISO 8601.
        published_variant: the ``variant`` cell of the rows in published.csv that this run repeats, if it repeats one.
        folder: where it was read from; not part of the file.
    """

    method: str
    config: dict[str, Any]
    config_hash: str
    environment: Environment
    results: list[Result]
    provenance: Provenance = "measured"
    variant: str = ""
    label: str | None = None
    set_labels: dict[str, str] = field(default_factory=dict)
    seed: int | None = None
    created: str = ""
    checkpoint: Checkpoint | None = None
    training: Training | None = None
    cost: Cost = field(default_factory=Cost)
    published_variant: str | None = None
    notes: list[str] = field(default_factory=list)
    schema: int = SCHEMA_VERSION
    folder: Path | None = field(default=None, compare=False, metadata={"stored": False})

    @property
    def name(self) -> str:
        """The run folder's name, which tells runs apart for a reader."""
        return self.folder.name if self.folder else self.config_hash[:8]


class _Invalid(Exception):
    """``args``: what is wrong, then the keys from the inside out."""


def _typed(check: Callable[[Any], bool], expected: str) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if not check(value):
            raise _Invalid(f"expected {expected}, found {type(value).__name__} {json.dumps(value)[:40]}")
        return value

    return convert


def _number(value: Any) -> bool:
    if type(value) is not float and (not isinstance(value, int) or isinstance(value, bool)):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max  # also for whole numbers that no float can hold


_SCALARS: dict[Any, Callable[[Any], Any]] = {
    str: _typed(lambda value: isinstance(value, str), "a text"),
    bool: _typed(lambda value: isinstance(value, bool), "true or false"),
    int: _typed(lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"),
    float: _typed(_number, "a finite number"),
    Any: lambda value: value,
}


def _members(items: Iterable[tuple[Any, Any]], convert: Callable[[Any], Any]) -> Iterable[tuple[Any, Any]]:
    for key, value in items:
        try:
            yield key, convert(value)
        except _Invalid as error:
            raise _Invalid(*error.args, key) from None


@functools.cache
def _converter(kind: Any) -> Callable[[Any], Any]:
    """A function that turns parsed JSON into a value of the annotated type, or raises :class:`_Invalid`."""
    if kind in _SCALARS:
        return _SCALARS[kind]
    if dataclasses.is_dataclass(kind):
        return _dataclass_converter(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (_converter(argument) for argument in arguments if argument is not type(None))
        return lambda value: None if value is None else inner(value)
    if origin is Literal:
        return _typed(lambda value: value in arguments, f"one of {', '.join(map(str, arguments))}")
    if origin is list:
        item, is_list = _converter(arguments[0]), _typed(lambda value: isinstance(value, list), "a list")
        return lambda value: [kept for _, kept in _members(enumerate(is_list(value)), item)]
    assert origin is dict, kind
    item, is_object = _converter(arguments[1]), _typed(lambda value: isinstance(value, dict), "an object")
    return lambda value: dict(_members(is_object(value).items(), item))


def _required(members: Iterable[dataclasses.Field[Any]]) -> list[str]:
    """Names of those without a default."""
    missing = dataclasses.MISSING
    return [item.name for item in members if item.default is missing and item.default_factory is missing]


def _dataclass_converter(kind: Any) -> Callable[[Any], Any]:
    hints = typing.get_type_hints(kind)
    stored = [item for item in dataclasses.fields(kind) if item.metadata.get("stored", True)]
    converters = {item.name: _converter(hints[item.name]) for item in stored}
    required = _required(stored)

    def convert(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _Invalid(f"expected an object, found {type(value).__name__}")
        arguments = {}
        for key, member in value.items():
            if key not in converters:
                raise _Invalid("unknown key", key)
            try:
                arguments[key] = converters[key](member)
            except _Invalid as error:
                raise _Invalid(*error.args, key) from None
        for key in required:
            if key not in value:
                raise _Invalid("missing key", key)
        return kind(**arguments)

    return convert


def from_dict(value: Any, source: str = FILE_NAME) -> Record:
    """A record from parsed JSON; ``source`` is named in messages.

    Raises:
        UserError: naming the file and the key, if the version is newer than this code's, a key is missing or unknown,
            or a value has the wrong type.
    """
    if not isinstance(value, dict) or not isinstance(value.get("schema"), int):
        raise UserError(f'{source}: not a record of vgbench (no "schema" number)')
    if value["schema"] > SCHEMA_VERSION:
        raise UserError(
            f"{source}: schema {value['schema']} is newer than this vgbench reads ({SCHEMA_VERSION}); upgrade vgbench"
        )
    if value["schema"] < 1:
        raise UserError(f"{source}: schema: there is no version {value['schema']}")
    try:
        return _converter(Record)(value)
    except _Invalid as error:
        message, *keys = error.args
        raise UserError(f"{source}: {'.'.join(str(key) for key in reversed(keys)) or 'top level'}: {message}") from None


def read(path: Path | str) -> Record:
    """The record of a run folder (or of a record file).

    Raises:
        UserError: as :func:`from_dict`, or if there is no such file or it is no JSON.
    """
    file = Path(path)
    if file.is_dir():
        file = file / FILE_NAME
    try:
        value = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; a run folder with a {FILE_NAME} is made by `vgbench run`") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: not readable as JSON ({error})") from error
    record = from_dict(value, str(file))
    record.folder = file.parent
    return record


def find(paths: Iterable[Path | str]) -> list[Record]:
    """All records in run folders, record files, and folders of run folders at any depth; sorted by path.

    Raises:
        UserError: if a path does not exist, holds no record, or holds a bad one.
    """
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        found = [path] if path.is_file() else sorted(walk(path)) if path.is_dir() else None
        if found is None:
            raise UserError(f"{path}: no such file or folder")
        if not found:
            raise UserError(f"{path}: no {FILE_NAME} in it or below; `vgbench run` and `vgbench score` write one")
        files.update(dict.fromkeys(file.resolve() for file in found))
    return [read(file) for file in files]


def walk(folder: Path) -> Iterable[Path]:
    """Record files below ``folder``. A run folder is not searched further: its checkpoints and pictures are many."""
    below = []
    for entry in os.scandir(folder):
        if entry.name == FILE_NAME:
            yield Path(entry.path)
            return
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            below.append(entry.path)
    for path in below:
        yield from walk(Path(path))


def read_curves(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Series of a run's training log (Lightning's CSV): name -> (optimiser step, value), ascending by step.

    Raises:
        UserError: if the file is no such log.
    """
    series: dict[str, dict[float, float]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                step = float(line["step"])
                for name, text in line.items():
                    if text and name not in ("step", None):
                        series.setdefault(name, {})[step] = float(text)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: not a CSV log of a training run ({error})") from error
    return {
        name: [(step, value) for step, value in sorted(points.items()) if math.isfinite(value)]
        for name, points in series.items()
    }


def json_schema() -> dict[str, Any]:
    """The dataclasses above as a JSON Schema (draft 2020-12); ``leaderboards/record.schema.json`` is a copy of it."""
    definitions: dict[str, Any] = {}
    top = _schema_of(Record, definitions)
    definitions["Record"]["properties"]["schema"] = {"const": SCHEMA_VERSION}
    definitions["Record"]["required"].append("schema")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": FILE_NAME, **top, "$defs": definitions}


def _schema_of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """What :func:`_converter` accepts for an annotated type; dataclasses go into ``definitions``."""
    scalars = {str: "string", bool: "boolean", int: "integer", float: "number"}
    if kind in scalars:
        return {"type": scalars[kind]}
    if kind is Any:
        return {}
    if dataclasses.is_dataclass(kind):
        name = getattr(kind, "__name__", "")
        if name not in definitions:
            hints = typing.get_type_hints(kind)
            stored = [item for item in dataclasses.fields(kind) if item.metadata.get("stored", True)]
            definitions[name] = {
                "type": "object",
                "properties": {item.name: _schema_of(hints[item.name], definitions) for item in stored},
                "required": _required(stored),
                "additionalProperties": False,
            }
        return {"$ref": f"#/$defs/{name}"}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema_of(a, definitions) if a is not type(None) else {"type": "null"} for a in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": _schema_of(arguments[0], definitions)}
    assert origin is dict, kind
    return {"type": "object", "additionalProperties": _schema_of(arguments[1], definitions)}


def to_dict(record: Record) -> dict[str, Any]:
    """Plain JSON values, as they are stored. Numbers of the configuration that JSON has not become texts ("inf")."""
    value = dataclasses.asdict(record)
    value["config"] = _finite(value["config"])
    for item in dataclasses.fields(record):
        if not item.metadata.get("stored", True):
            del value[item.name]
    return {"schema": value.pop("schema"), **value}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def write(record: Record, folder: Path | str) -> Path:
    """Write ``record.json`` into a run folder, atomically, after the same validation as on reading.

    Raises:
        UserError: if the record would not be read back.
    """
    folder = Path(folder)
    file = folder / FILE_NAME
    if not record.created:
        record.created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    value = to_dict(record)
    from_dict(value, str(file))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")
    record.folder = folder
    return file


#: Keys of a config (dotted) that say where and how a run happened, not what was computed.
NOT_IDENTITY = frozenset(
    {
        *("seed", "recipe.seed", "run_dir", "runs", "resume", "hydra", "logger", "workers", "checkpoint_every"),
        *("dataset.data_root", "dataset.image_root"),
    }
)


#: Keys of a method's node that say where a file lies on this machine.
METHOD_FILES = frozenset({"tokenizer", "vocabulary", "proposals"})


PACKAGES = (
    "vgbench",
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "transformers",
    "timm",
    "hydra-core",
    "numpy",
    "scipy",
    "pyarrow",
    "pycocotools",
    "opencv-python-headless",
    "sentencepiece",
    "safetensors",
)


def resolved(config: Any) -> dict[str, Any]:
    """A composed configuration as plain values, interpolations filled in and Hydra's own node left out."""
    from omegaconf import OmegaConf

    plain = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    node = OmegaConf.to_container(plain, resolve=True)
    assert isinstance(node, dict)
    return {str(key): value for key, value in node.items()}


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 (16 hex digits) of the resolved config without :data:`NOT_IDENTITY`: equal for two seeds of one thing."""

    def kept(part: Mapping[str, Any], above: str = "") -> dict[str, Any]:
        named = ((f"{above}{key}", key, value) for key, value in part.items())
        return {
            key: kept(value, f"{path}.") if isinstance(value, Mapping) else value
            for path, key, value in named
            if path not in NOT_IDENTITY
        }

    text = json.dumps(kept(config), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def environment() -> Environment:
    """Python, package versions, commit and hardware of this process. Imports nothing: a GPU is reported only where
    torch is loaded already."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Environment(platform.python_version(), platform.platform(), packages, _code(), _hardware())


def _code() -> Code:
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str | None:
        try:
            command = ["git", "-C", str(here.parent), *arguments]
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy may lie inside somebody else's repository: ours is the one that tracks this very file.
    if git("ls-files", "--error-unmatch", here.name) is None:
        return Code()
    return Code(git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no")))


def _hardware() -> Hardware:
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:
        pass
    try:
        memory: int | None = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        memory = None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch = sys.modules.get("torch")
    gpus = torch.cuda.device_count() if torch is not None and torch.cuda.is_available() else 0
    gpu = torch.cuda.get_device_name(0) if torch is not None and gpus else None
    return Hardware(cpu, cores, memory, gpu, gpus)
