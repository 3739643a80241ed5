"""The record of a run: what is stored in record.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

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
        content: what metrics see of the table, by level (:func:`~vgbench.data.content.content_hashes`): equal for the
            same expressions from two layouts. Empty in records that were written before there was one.
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
    content: dict[str, str] = field(default_factory=dict)

    @property
    def part(self) -> str | None:
        """What was scored of the split where it was not all of it: "4 of 5,657"; None for a whole split."""
        if self.expected_expressions is None or self.expressions >= self.expected_expressions:
            return None
        return f"{self.expressions:,} of {self.expected_expressions:,}"


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
    """The machine of a run."""

    cpu: str
    cores: int
    memory_bytes: int | None = None
    gpu: str | None = None
    gpus: int = 0


@dataclass
class Environment:
    """Versions, code and machine of a run."""

    python: str
    platform: str
    packages: dict[str, str]
    code: Code
    hardware: Hardware


@dataclass
class Cost:
    """What it took. Throughput is in samples (image and expression) per second; FLOPs are of one forward pass.

    ``set_samples_per_s``: inference throughput of each prediction set alone, where there are several.
    ``latency_s``: seconds of one prediction at batch 1, the image's loading left out.
    ``prompt_tokens``, ``answer_tokens``, ``answer_s``: of a language model, per answer on average.
    ``prompt_price``, ``answer_price``: of its tokens, in US dollars per million, as they were given for the run.
    """

    wall_s: float | None = None
    peak_memory_bytes: int | None = None
    train_samples_per_s: float | None = None
    inference_samples_per_s: float | None = None
    set_samples_per_s: dict[str, float] = field(default_factory=dict)
    parameters: int | None = None
    trainable_parameters: int | None = None
    flops: float | None = None
    latency_s: float | None = None
    prompt_tokens: float | None = None
    answer_tokens: float | None = None
    answer_s: float | None = None
    prompt_price: float | None = None
    answer_price: float | None = None


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
