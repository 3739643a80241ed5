"""The command line. Nothing heavy is imported before a command is known: ``vgbench --help`` answers at once."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vgbench.core.errors import UserError

OVERRIDES = "Anything can be overridden in Hydra's syntax (key=value, +key=value, ~key); -m sweeps over a,b,c."

SCORE_OVERRIDES = (
    "dataset=... split=... [task=...]; a foreign file also needs format=coco|grefcoco|text, and as it applies "
    "scale=pixels|1|1000, boxes=xyxy|xywh, match=key|sent_id|row|sentence, id=FIELD, text=FIELD, sentence=FIELD"
)

REPRODUCE_OVERRIDES = (
    "paper=... [table=main] [runs=FOLDER] [checkpoints=FOLDER: the authors' files] [pretrained=FOLDER: start weights] "
    "and, for each run, data_root=..., method.tokenizer=..., trainer=gpu"
)

PLUGIN = "take methods, datasets and metrics from a file or package that is not installed (may be repeated)"

# what `vgbench data` does, each with an example of its arguments
DATA_ACTIONS = {
    "list": "",
    "download": "dataset=refcoco data_root=data",
    "build": "dataset=refcoco data_root=data",
    "verify": "dataset=refcoco data_root=data --decode",
    "convert": "dataset=refcoco data_root=data layout=mdetr out=converted",
    "stats": "dataset=refcoco data_root=data out=refcoco.png",
    "leakage": "train=refcocog eval=refcoco data_root=data",
    "browse": "dataset=refcoco data_root=data split=val out=sheet",
    "priors": "dataset=refcoco data_root=data generator=sd-turbo encoder=clip-vit-base-patch32",
    "augment": "dataset=refcoco data_root=data out=augmented amount=1000",
    "register-detectron2": "dataset=refcoco data_root=data out=register_refcoco.py",
}

EXAMPLES = {
    "run": "vgbench run method=alvg dataset=refcoco dataset.data_root=data method.tokenizer=beit3.spm "
    "pretrained=beit3_base_indomain_patch16_224.pth trainer=gpu",
    "eval": "vgbench eval method=alvg dataset=refcoco dataset.data_root=data checkpoint=runs/alvg-refcoco",
    "bench": "vgbench bench method=alvg trainer.precision=bf16-mixed bench.batch_size=2",
    "predict": 'vgbench predict image.jpg "the red mug left of the sink" checkpoint=runs/alvg-refcoco',
    "export": "vgbench export runs/alvg-refcoco alvg.safetensors --half",
    "score": "vgbench score predictions.jsonl dataset=refcoco split=val dataset.data_root=data",
    "compare": "vgbench compare runs/ --format latex",
    "reproduce": "vgbench reproduce paper=simvg table=main data_root=data checkpoints=released "
    "method.tokenizer=beit3.spm",
    "list": "vgbench list methods",
    "new": "vgbench new method mymethod",
    "data": "vgbench data verify dataset=refcoco dataset.data_root=data",
    "conform": "vgbench conform tests/conformance/alvg-rec-a",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vgbench",
        description="Train, evaluate and compare visual-grounding methods under one roof.",
        epilog="first steps: vgbench list; vgbench run method=alvg dataset=refshapes; vgbench compare",
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def add(name: str, help: str, more: str = "") -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=help, description=f"{help} {more}", epilog=f"example: {EXAMPLES[name]}"
        )
        command.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        if name not in ("compare", "new"):  # these read records and templates only
            command.add_argument("--plugin", action="append", default=[], metavar="FILE.py|PACKAGE", help=PLUGIN)
        return command

    for name, help in {
        "run": "Train a method on a dataset, evaluate it, write a run folder; flow=NAME: a sequence of such runs.",
        "eval": "Evaluate a checkpoint (ours or the authors') and write a run folder.",
        "bench": "Measure training and inference speed, memory and FLOPs.",
    }.items():
        command = add(name, help, OVERRIDES)
        command.add_argument("overrides", nargs="*", metavar="key=value")
        command.add_argument("-m", "--multirun", action="store_true", help="run every combination of a,b,c values")
        command.add_argument("--cfg", choices=["job", "hydra", "all"], help="print the composed configuration and stop")

    command = add("predict", "Ground an expression in an image: draws the result, prints JSON.")
    command.add_argument("image", type=Path)
    command.add_argument("expression")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="checkpoint=... and the like")
    command.add_argument("-o", "--output", type=Path, help="picture to write (default: <image>.grounded.png)")

    command = add("export", "Write a model (a run folder, or the authors' checkpoint) as one safetensors file.")
    command.add_argument("checkpoint", help='run folder, checkpoint file, or "shipped"')
    command.add_argument("file", type=Path, help="file to write, .safetensors")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="method=... for an official checkpoint")
    command.add_argument("--half", action="store_true", help="store as float16: half the size")
    command.add_argument("--slim", action="store_true", help="leave out what only training needs (AMC: momentum model)")

    command = add("score", "Score a predictions file (JSONL or Parquet; schema: vgbench/metrics/README.md).")
    command.add_argument("file", help='predictions file, or "trivial" for the centre box of median size')
    command.add_argument("overrides", nargs="*", metavar="key=value", help=SCORE_OVERRIDES)
    command.add_argument("--variant", action="append", default=[], metavar="TASK/NAME", help="a named metric variant")
    command.add_argument("--json", type=Path, help="also write the report as JSON")
    command.add_argument("--register", type=Path, metavar="DIR", help="write a run folder: a leaderboard row, external")
    command.add_argument("--label", help="with --register: the model's name on leaderboards (default: the file's name)")

    command = add("compare", "Print the leaderboard of run folders.")
    command.add_argument("runs", nargs="*", type=Path, help="run folders, or folders of them (default: runs/)")
    command.add_argument("--format", choices=["markdown", "csv", "json", "latex"], default="markdown")
    command.add_argument("--output", type=Path, help="write to a file instead of the terminal")
    command.add_argument("--all-metrics", action="store_true", help="every metric, not only a task's headline")
    command.add_argument("--seeds", action="store_true", help="several seeds of one configuration: mean and deviation")
    command.add_argument(
        "--published",
        nargs="?",
        const="own",
        choices=["own", "all"],
        help="published numbers beside the measured ones: of the same methods (own) or of every method (all)",
    )
    command.add_argument("--committed", action="store_true", help="also the results committed with the suite")
    command.add_argument("--slices", action="store_true", help="two runs: their difference by kind of expression")
    command.add_argument("--pictures", type=Path, metavar="DIR", help="with --slices: draw the disagreements")
    command.add_argument("--html", type=Path, metavar="DIR", help="write the leaderboard as one static page")

    command = add("reproduce", "Make a paper's table: published value, ours, interval, verdict; runs what is missing.")
    command.add_argument("overrides", nargs="*", metavar="key=value", help=REPRODUCE_OVERRIDES)
    command.add_argument("--dry-run", action="store_true", help="print the plan with estimated GPU hours and stop")
    command.add_argument("--commit-to", type=Path, metavar="DIR", help="copy the records to DIR/PAPER/RUN")
    command.add_argument("--json", type=Path, help="also write the table as JSON")
    command.add_argument("--strict", action="store_true", help="exit 1 if a cell differs")

    command = add("list", "List methods, datasets, recipes, flows, papers' tables and metrics.")
    command.add_argument("what", nargs="?", choices=["methods", "datasets", "recipes", "flows", "papers", "metrics"])

    command = add("new", "Write a working package for a new method or dataset.")
    command.add_argument("kind", choices=["method", "dataset"])
    command.add_argument("name", help="lower case; what is typed for method= or dataset=")
    command.add_argument("folder", nargs="?", type=Path, help="folder to make (default: vgbench-NAME)")

    command = add("data", "Look after datasets.")
    command.add_argument("action", choices=list(DATA_ACTIONS))
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    examples = [f"vgbench data {action} {arguments}".rstrip() for action, arguments in DATA_ACTIONS.items()]
    command.epilog = "example: {}\n\nof each action:\n  {}".format(EXAMPLES["data"], "\n  ".join(examples))
    command.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="dataset=... data_root=... [split=a,b]; convert: layout=... out=FOLDER; leakage: train=... eval=...; "
        "browse: out=FOLDER [limit=60] [extra_train=FOLDER]; priors: generator=... encoder=... [out=FILE]; "
        "augment: out=FOLDER [amount=1000]; download: [layout=...] [part=annotations|images]",
    )
    command.add_argument("--yes", action="store_true", help="download: accept the licence without being asked")
    command.add_argument("--decode", action="store_true", help="verify: decode every image, not only its header")
    command.add_argument("--strict", action="store_true", help="verify: exit 1 on any difference")

    command = add("conform", "Compare our methods with what the official code computed.")
    command.add_argument("cases", nargs="+", type=Path, metavar="CASE")
    command.add_argument("--device", default="cpu")
    command.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    command.add_argument("--json", type=Path, help="write all results")
    return parser


def compose(overrides: Sequence[str], name: str = "run") -> Any:
    """The configuration of ``vgbench run`` with overrides, composed without running anything.

    ``name="bench"``: that of ``vgbench bench``.
    ``data_root=...`` and ``image_root=...`` are short for ``dataset.data_root=...`` and ``dataset.image_root=...``.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module

    from vgbench.plugins import prepare

    with initialize_config_module("vgbench.configs", version_base="1.3"):
        return hydra_compose(name, overrides=prepare(expand(overrides)), return_hydra_config=True)


def expand(overrides: Sequence[str]) -> list[str]:
    """Spell out the short forms of override keys. Every dataset takes a filter, whether its YAML names it or not."""
    short = ("data_root=", "image_root=", "split_by=")
    spelt = [f"dataset.{item}" if item.startswith(short) else item for item in overrides]
    return [f"++{item}" if item.startswith("dataset.filter=") else item for item in spelt]


def quoted(path: Path) -> str:
    """A path as a value in Hydra's grammar."""
    import re

    text = str(path)
    return text if re.fullmatch(r"[\w/.+\-]+", text) else "'" + text.replace("'", r"\'") + "'"


def _hydra(name: str, arguments: argparse.Namespace) -> int:
    """Hand over to Hydra, which composes the configuration and calls the command once per sweep point."""
    import hydra

    from vgbench.plugins import prepare

    argv = prepare(expand(arguments.overrides))
    check_recipe(arguments.overrides)
    if arguments.cfg:
        argv += ["--cfg", arguments.cfg]
    if arguments.multirun:
        argv += ["--multirun"]
    own_argv, sys.argv = sys.argv, [f"vgbench {name}", *argv]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach us, we make one line of them

    failures: list[Exception] = []

    def command(config: Any) -> Any:
        from vgbench import bench, runner

        sys.argv = own_argv  # Lightning starts the other processes of a node with it
        try:
            return {"run": runner.run, "eval": runner.evaluate, "bench": bench.bench}[name](config)
        except Exception as error:
            if arguments.multirun:
                raise
            failures.append(error)  # Hydra would print a line of its own
            return None

    hydra.main(
        version_base="1.3", config_path="pkg://vgbench.configs", config_name="bench" if name == "bench" else "run"
    )(command)()
    if failures:
        raise failures[0]
    return 0


def check_recipe(overrides: Sequence[str]) -> None:
    """Hydra passes over a missing ``recipe`` in silence, because a pair of method and dataset need not have one.

    Raises:
        UserError: if a recipe that was asked for does not exist.
    """
    from difflib import get_close_matches

    from vgbench.catalog import options

    asked = [name for item in overrides if item.startswith("recipe=") for name in item[len("recipe=") :].split(",")]
    for name in asked:
        if name != "null" and name not in (there := options("recipe")):
            close = get_close_matches(name, there, n=1)
            hint = f"did you mean {close[0]}?" if close else "vgbench list recipes shows them"
            raise UserError(f"recipe={name}: there is no such recipe; {hint}")


def _flow(arguments: argparse.Namespace) -> int:
    from vgbench import flow

    if arguments.multirun or arguments.cfg not in (None, "job"):
        raise UserError("a flow goes with neither -m nor --cfg hydra; call it once per value, or use --cfg job")
    return flow.run(arguments.overrides, show=arguments.cfg == "job")


def _method_of(arguments: argparse.Namespace) -> list[str]:
    """The overrides of ``vgbench export``, with the method that the checkpoint itself names."""
    from vgbench import weights

    path = Path(arguments.checkpoint)
    overrides: list[str] = list(arguments.overrides)
    if path.exists() and not any(item.startswith("method=") for item in overrides):
        stored = weights.method_config(weights.resolve(str(path))) or {}
        name = str(stored.get("_target_", "")).removeprefix("vgbench.methods.").partition(".")[0]
        return [f"method={name}", *overrides] if name else overrides
    return overrides


def split_overrides(overrides: Sequence[str], *own: str) -> tuple[dict[str, str], list[str]]:
    """Separate the command's own ``key=value`` arguments from configuration overrides."""
    mine: dict[str, str] = {}
    rest = []
    for item in overrides:
        key, _, value = item.partition("=")
        if key in own:
            mine[key] = value
        else:
            rest.append(item)
    return mine, rest


def _run(arguments: argparse.Namespace) -> int:
    for spec in getattr(arguments, "plugin", ()):
        from vgbench import plugins

        plugins.load(spec)
    if arguments.command == "run" and any(item.startswith("flow=") for item in arguments.overrides):
        return _flow(arguments)
    if arguments.command in ("run", "eval", "bench"):
        return _hydra(arguments.command, arguments)
    if arguments.command == "conform":
        from vgbench.conform import main as conform

        return conform(arguments.cases, arguments.device, arguments.precision, arguments.json)
    if arguments.command == "compare":
        from vgbench import leaderboard

        return leaderboard.main(
            arguments.runs or ([] if arguments.committed and not Path("runs").is_dir() else [Path("runs")]),
            arguments.format,
            arguments.output,
            all_metrics=arguments.all_metrics,
            seeds=arguments.seeds,
            published=arguments.published,
            slices=arguments.slices,
            pictures=arguments.pictures,
            html=arguments.html,
            committed=arguments.committed,
        )
    if arguments.command == "reproduce":
        from vgbench import reproduce

        own, overrides = split_overrides(arguments.overrides, *reproduce.OWN_KEYS)
        return reproduce.main(
            own,
            overrides,
            dry_run=arguments.dry_run,
            commit_to=arguments.commit_to,
            json_file=arguments.json,
            strict=arguments.strict,
        )
    if arguments.command == "new":
        from vgbench import skeleton

        return skeleton.main(arguments.kind, arguments.name, arguments.folder)
    if arguments.command == "list":
        from vgbench.catalog import print_catalog

        return print_catalog(arguments.what)
    if arguments.command == "data":
        from vgbench import data_command as data

        return data.main(arguments.action, arguments.overrides, arguments.decode, arguments.strict, arguments.yes)
    if arguments.command == "score":
        from vgbench import score

        foreign = ("format", "scale", "boxes", "match", "id", "text", "sentence")
        own, overrides = split_overrides(arguments.overrides, "split", *foreign)
        return score.main(
            arguments.file,
            compose(overrides),
            own.pop("split", None),
            arguments.variant,
            arguments.json,
            reading=own,
            folder=arguments.register,
            label=arguments.label,
        )
    from vgbench import runner

    if arguments.command == "export":
        config = compose([*_method_of(arguments), f"checkpoint={arguments.checkpoint}"])
        return runner.export(config, arguments.file, arguments.half, arguments.slim)
    return runner.predict(arguments.image, arguments.expression, compose(arguments.overrides), arguments.output)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Exit code 2 and one line for what the user can mend; tracebacks only for our own bugs."""
    parser = _parser()
    arguments, unknown = parser.parse_known_args(argv)
    if hasattr(arguments, "overrides"):  # argparse gives up on key=value behind an option
        arguments.overrides += [item for item in unknown if "=" in item and not item.startswith("-")]
        unknown = [item for item in unknown if "=" not in item or item.startswith("-")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if arguments.version:
        from vgbench import __version__

        print(f"vgbench {__version__}")
        return 0
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        return _run(arguments)
    except UserError as error:
        if arguments.debug:
            raise
        print(f"vgbench: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("vgbench: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        hint = _config_hint(error, arguments) if _is_config_error(error) else _place_hint(error)
        if arguments.debug or hint is None:
            raise
        print(f"vgbench: error: {hint}", file=sys.stderr)
        return 2


def _is_config_error(error: Exception) -> bool:
    """Whether it is an error of Hydra or OmegaConf, or was raised in their code (a number as a group's choice is)."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    raised_in = place.tb_frame.f_globals.get("__name__", "") if place is not None else ""
    return any(name.partition(".")[0] in ("hydra", "omegaconf") for name in (type(error).__module__, raised_in))


def _config_hint(error: Exception, arguments: argparse.Namespace) -> str:
    """One line for an error of Hydra or OmegaConf: names the key and what it could have been."""
    import re
    from difflib import get_close_matches

    choices, missing = getattr(error, "options", None), getattr(error, "missing_cfg_file", None)
    if choices and missing:
        group, _, name = missing.rpartition("/")
        close = get_close_matches(name, choices, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        return f"{group}={name}: there is no such {group}; {meant}there are: {', '.join(sorted(choices))}"
    if isinstance(error.__cause__, UserError):  # what a method or a dataset said while Hydra was making it
        return _one_line(error.__cause__)
    text = _one_line(error.__cause__ or error) if type(error).__name__ == "InstantiationException" else _one_line(error)
    unknown = re.match(r"Could not override '([^']+)'", text)
    if unknown:
        meant = " or ".join(_similar_keys(unknown[1], arguments))
        return f"{unknown[1]}: unknown key; " + (f"did you mean {meant}?" if meant else "--cfg job shows all keys")
    return f"configuration: {text} (vgbench list shows the choices, --cfg job the composed keys)"


def _similar_keys(key: str, arguments: argparse.Namespace) -> list[str]:
    """Keys of the configuration with the same last part as ``key``, else the one that is spelt most like it."""
    from difflib import get_close_matches

    from omegaconf import OmegaConf

    name = "bench" if arguments.command == "bench" else "run"
    groups = ("method=", "trainer=", *(("bench=",) if name == "bench" else ("dataset=", "recipe=", "logger=")))
    chosen = [item.partition(",")[0] for item in arguments.overrides if item.startswith(groups)]
    config: Any = OmegaConf.to_container(compose(chosen, name))

    def walk(node: Any, above: str = "") -> Iterator[str]:
        for name, value in node.items() if isinstance(node, dict) else ():
            yield above + str(name)
            yield from walk(value, f"{above}{name}.")

    keys = [name for name in walk(config) if name.partition(".")[0] != "hydra"]
    last = key.rpartition(".")[2]
    same = sorted((name for name in keys if name.rpartition(".")[2] == last), key=lambda name: name.count("."))
    ends = {name.rpartition(".")[2]: name for name in keys}
    alike = get_close_matches(key, keys, n=1, cutoff=0.8)
    return same[:3] or alike or [ends[end] for end in get_close_matches(last, ends, n=1, cutoff=0.8)]


def _place_hint(error: Exception) -> str | None:
    """One line for a place that cannot be made, read or written, or a full disk; None for any other error."""
    if not isinstance(error, OSError) or not (error.filename or error.errno == errno.ENOSPC):
        return None
    return f"{error.filename or 'writing'}: {error.strerror} (--debug shows what wanted it)"


if __name__ == "__main__":
    sys.exit(main())
