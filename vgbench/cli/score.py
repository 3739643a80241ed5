"""``vgbench score``: a predictions file against the annotations."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgbench.config.compose import compose, split_overrides
from vgbench.core.errors import UserError

if TYPE_CHECKING:
    from vgbench.data.dataset import GroundingData
    from vgbench.data.table import AnnotationTable
    from vgbench.predictions.table import Predictions

NAME = "score"
HELP = "Score a predictions file (JSONL or Parquet; schema: vgbench/metrics/README.md)."
EXAMPLE = "vgbench score predictions.jsonl dataset=refcoco split=val data_root=data"
TAKES_PLUGINS = True

OVERRIDES = (
    "dataset=... split=... [task=...]; a model's words also need style=NAME (vgbench list styles; e.g. "
    "style=qwen2.5-vl scale=input_width,input_height), another foreign file format=coco|grefcoco|text, and as it "
    "applies scale=pixels|1|1000|WIDTH_FIELD,HEIGHT_FIELD, boxes=xyxy|xywh|yxyx|yxhw|cxcywh|xxyy, "
    "frame=image|square|corner, several=all|first|last|union|any, match=key|sent_id|row|order|sentence, id=FIELD, "
    "text=FIELD, box=FIELD, sentence=FIELD"
)
# how a file of another kind is read
FOREIGN = ("style", "format", "scale", "boxes", "frame", "several", "match", "id", "text", "box", "sentence")
ANY = "rec/any"  # the variant that several=any asks for
TRIVIAL = "trivial"  # instead of a file: the centre box of median size


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of this command."""
    parser.add_argument("file", help='predictions file, or "trivial" for the centre box of median size')
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    parser.add_argument("--variant", action="append", default=[], metavar="TASK/NAME", help="a named metric variant")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report as JSON; -: print it alone")
    parser.add_argument("--register", type=Path, metavar="DIR", help="write a run folder: a leaderboard row, external")
    parser.add_argument("--label", help="with --register: the model's name on leaderboards (default: the file's name)")


def execute(arguments: Namespace) -> int:
    """Print the report of every split; write it as JSON and as a run folder if that is wished.

    Raises:
        UserError: if the file, the split or a variant is wrong, or the folder holds a run that was made here.
    """
    from hydra.utils import instantiate

    from vgbench.core.files import write_atomically
    from vgbench.core.terminal import output
    from vgbench.metrics.catalog import make_metric
    from vgbench.metrics.evaluator import evaluate_predictions, format_report, report_grid
    from vgbench.records.external import ExternalSplit, check_register, register

    own, overrides = split_overrides(arguments.overrides, "split", *FOREIGN)
    config = compose(overrides)
    if arguments.label and not arguments.register:
        raise UserError("--label names a row of the leaderboard: add --register DIR")
    if arguments.register:
        check_register(arguments.register)
    dataset: GroundingData = instantiate(config.dataset)
    file, split = arguments.file, own.pop("split", None)
    predictions, reports = {}, {}
    json_alone = str(arguments.json) == "-"
    notes = [f"predictions: {'centre box of median size' if file == TRIVIAL else Path(file).name}"]
    for name in _splits(file, split, dataset):
        table = dataset.load(name)
        predictions[name], reading_notes = read_answers(file, table, own)
        notes += reading_notes
        tasks = [config.task] if config.task else []
        variants = [*arguments.variant, *config.eval.variants]
        if own.get("several") == "any" and ANY not in variants:
            variants.append(ANY)
        variants += [] if tasks else _authors_metrics(dataset, table, predictions[name])
        reports[name] = evaluate_predictions(table, predictions[name], tasks, variants, config.eval.bootstrap)
        notes += [note for spec in reports[name].outcomes if (note := make_metric(spec).note(predictions[name]))]
        published = dataset.splits[name].expressions
        if published is not None and len(table) < published:
            notes.append(f"{len(table):,} of {published:,} expressions of {name}: part of the split, not comparable")
        if not json_alone:
            output([report_grid(reports[name])], format_report(reports[name]) + "\n\n")
    for note in notes[1:]:
        print(f"note: {note}", file=sys.stderr if json_alone else sys.stdout)
    if arguments.json:
        text = json.dumps([report.as_dict() for report in reports.values()], indent=2)
        if json_alone:
            print(text)
        else:
            write_atomically(arguments.json, text.encode())
    if arguments.register:
        label = arguments.label or Path(file).stem
        splits = {
            name: ExternalSplit(predictions[name], report, _unreadable(file, dataset.load(name), own))
            for name, report in reports.items()
        }
        written = register(arguments.register, label, splits, dataset, config.dataset, notes)
        print(f"record: {written} (vgbench compare shows it)")
    return 0


def _authors_metrics(dataset: GroundingData, table: AnnotationTable, predictions: Predictions) -> list[str]:
    """What the authors of the data report, as far as these predictions are of that kind."""
    from vgbench.metrics.evaluator import authors_metrics, default_tasks

    return authors_metrics(dataset.own_metrics, default_tasks(table, predictions))


def _splits(file: str, split: str | None, dataset: GroundingData) -> Sequence[str]:
    """The splits that are scored; of "trivial" several ("val,testA"), by default every evaluation split.

    Raises:
        UserError: if there is no such file (said before any dataset is read), or nobody says which split it is of.
    """
    if file != TRIVIAL and not Path(file).is_file():
        raise UserError(f"{file}: no such file")
    splits = dataset.parse_splits(split or dataset.evaluation_splits)
    if file != TRIVIAL and (split is None or len(splits) != 1):
        raise UserError(f"{file}: say which split was predicted: split=NAME (one of {', '.join(dataset.splits)})")
    return splits


def _unreadable(file: str, table: AnnotationTable, reading: Mapping[str, Any]) -> Sequence[str]:
    """Keys of answers that could not be read; only other people's formats have any."""
    from vgbench.predictions.foreign import unreadable_keys
    from vgbench.predictions.reading import Reading

    return unreadable_keys(file, table, Reading.from_options(reading)) if reading and file != TRIVIAL else ()


def read_answers(file: str, table: AnnotationTable, reading: Mapping[str, Any]) -> tuple[Predictions, Sequence[str]]:
    """Predictions for a table, and what there is to say about how they were read."""
    from vgbench.predictions.foreign import read_foreign
    from vgbench.predictions.reader import read_predictions
    from vgbench.predictions.reading import Reading
    from vgbench.predictions.rereading import is_predictions_file, reread
    from vgbench.predictions.trivial import trivial_predictions

    if file == TRIVIAL:
        return trivial_predictions(table), ()
    if not reading:
        return read_predictions(file, table), ()
    stated = Reading.from_options(reading)
    if stated.style is not None and is_predictions_file(Path(file)):
        return reread(read_predictions(file, table), table, stated, file)
    return read_foreign(file, table, stated)
