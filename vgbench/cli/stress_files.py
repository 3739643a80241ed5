"""``vgbench stress export|score``: probes for models that run elsewhere."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgbench.cli.score import FOREIGN, read_answers
from vgbench.config.compose import compose, split_overrides
from vgbench.core.errors import UserError

if TYPE_CHECKING:
    from vgbench.data.table import AnnotationTable
    from vgbench.predictions.table import Predictions
    from vgbench.probes.questions import Questions
    from vgbench.probes.scoring import StressScore


def export(arguments: Namespace) -> int:
    """Write the questions of probes as files.

    Raises:
        UserError: if ``out`` or the data set is not named, the folder is there already, or a probe is not known.
    """
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from vgbench.probes.files import Inquiry, write_questions

    own, overrides = split_overrides(arguments.overrides, "out", "split", "probes")
    if "out" not in own or not any(item.startswith("dataset=") for item in overrides):
        raise UserError("stress export: say what and where: dataset=NAME out=FOLDER [split=val] [probes=mirror,swap]")
    config = compose(overrides)
    data = instantiate(config.dataset)
    node: Any = OmegaConf.to_container(config.dataset, resolve=True)
    inquiry = Inquiry(
        dataset=node,
        split=data.check_split(own.get("split", data.evaluation_splits[0])),
        probes=tuple(own.get("probes", "all").strip("[]").split(",")),
        seed=config.eval.stress_seed,
        limit=config.eval.stress_limit,
        objects=config.eval.stress_objects,
    )
    folder = Path(own["out"]).expanduser()
    for questions in write_questions(inquiry, data, folder):
        print(questions.note)
    print(
        f"{folder}: answer plain.jsonl and every other file there, then: vgbench stress score {folder} answers=FOLDER"
    )
    return 0


def score(arguments: Namespace) -> int:
    """Score answers to exported questions.

    Raises:
        UserError: if a folder is missing, answers do not fit their questions, or the data are others than before.
    """
    from vgbench.config.stored import make_dataset
    from vgbench.probes.files import MANIFEST, PLAIN, answers_file, read_inquiry
    from vgbench.records.external import check_register

    own, overrides = split_overrides(arguments.overrides, "answers", "data_root", "image_root", *FOREIGN)
    places, unknown = [item for item in overrides if "=" not in item], [item for item in overrides if "=" in item]
    if len(places) != 1 or "answers" not in own or unknown:
        reason = f"{unknown[0]}: not a key of it; " if unknown else ""
        raise UserError(f"stress score: {reason}give the folder of questions and answers=FOLDER")
    questions_folder, answers = Path(places[0]).expanduser(), Path(own.pop("answers")).expanduser()
    if not answers.is_dir():
        raise UserError(f"answers={answers}: no such folder")
    if arguments.register:
        check_register(arguments.register)
    inquiry, hashes = read_inquiry(questions_folder)
    moved: dict[str, Any] = {key: own.pop(key) for key in ("data_root", "image_root") if key in own}
    data = make_dataset({**inquiry.dataset, **moved}, questions_folder / MANIFEST)
    annotations = inquiry.annotations(data)
    if annotations.table.hash != hashes.get(PLAIN):
        raise UserError(f"{questions_folder}: {inquiry.split} is not the data that the questions are about any more")
    plain_file = answers_file(answers, PLAIN)
    if plain_file is None:
        raise UserError(f"{answers}: no file plain.* with the answers to the plain questions")
    plain, notes = read_answers(str(plain_file), annotations.table, own)
    scored: dict[str, tuple[Questions, StressScore]] = {}
    for questions in inquiry.questions(annotations):
        if questions.hash != hashes.get(questions.probe.spec, questions.hash):
            raise UserError(f"{questions_folder}: {questions.split} are other questions now; export them again")
        answer = _answer(questions, answers, own)
        if answer is None:
            print(
                f"note: {answers}: no file {questions.probe.spec.replace(':', '-')}.*, {questions.split} is not scored"
            )
            continue
        changed, reading_notes = answer
        notes = [*notes, *reading_notes, questions.note]
        scored[questions.split] = questions, _score(questions, changed, plain)
    _report(arguments, scored, annotations.table, plain, list(dict.fromkeys(notes)))
    if arguments.register:
        print(_register(arguments, inquiry.dataset, data, scored, list(dict.fromkeys(notes))))
    return 0


def _answer(
    questions: Questions, folder: Path, reading: Mapping[str, str]
) -> tuple[Predictions | None, list[str]] | None:
    """Answers to the questions of a probe, with notes; None if there is no file."""
    from vgbench.probes.base import Expectation
    from vgbench.probes.files import answers_file

    if questions.probe.expectation is Expectation.SAME:
        return None, []
    file = answers_file(folder, questions.probe.spec)
    if file is None:
        return None
    predictions, notes = read_answers(str(file), questions.table, reading)
    return predictions, [f"{questions.split}: {note}" for note in notes]


def _score(questions: Questions, changed: Predictions | None, plain: Predictions) -> StressScore:
    from vgbench.probes import scoring

    return scoring.score(questions, changed, plain)


def _report(
    arguments: Namespace,
    scored: Mapping[str, tuple[Questions, StressScore]],
    table: AnnotationTable,
    plain: Predictions,
    notes: list[str],
) -> None:
    """Print every number, and what is to be known of them."""
    from vgbench.core.terminal import output
    from vgbench.metrics.evaluator import format_report, report_grid

    for _, one in scored.values():
        output([report_grid(one.report)], format_report(one.report) + "\n\n")
    for note in notes:
        print(f"note: {note}")
    if arguments.json:
        import json

        from vgbench.core.files import write_atomically

        content = [one.report.as_dict() for _, one in scored.values()]
        write_atomically(arguments.json, json.dumps(content, indent=2).encode())


def _register(
    arguments: Namespace,
    node: Mapping[str, Any],
    data: Any,
    scored: Mapping[str, tuple[Questions, StressScore]],
    notes: list[str],
) -> str:
    """Write a run folder with a result for every probe, and the outcomes for paired tests."""
    from vgbench.probes.files import outcomes_file
    from vgbench.probes.scoring import write_outcomes
    from vgbench.records.external import write_external
    from vgbench.records.results import ScoredOutput, results_of

    folder = arguments.register
    results = []
    for split, (questions, one) in scored.items():
        write_outcomes(outcomes_file(folder, split, "main"), one.report, questions.table)
        results += results_of(
            ScoredOutput(
                data, split, questions.table, one.report, {}, output="main", predictions=None, slices=one.slices
            )
        )
    label = arguments.label or folder.name
    return f"record: {write_external(folder, label, results, node, notes)} (vgbench compare shows it)"
