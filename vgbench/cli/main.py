"""The command line. Nothing heavy is imported before a command is known: ``vgbench --help`` answers at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vgbench.cli.hints import config_hint, is_config_error, one_line, place_hint
from vgbench.config.compose import check_recipe, compose, expand, split_overrides
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
        if name != "new":  # it reads templates only
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


def _hydra(name: str, arguments: argparse.Namespace) -> int:
    """Hand over to Hydra, which composes the configuration and calls the command once per sweep point."""
    import hydra

    from vgbench.config.plugins import prepare

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
        from vgbench.bench.bench import bench
        from vgbench.training import run
        from vgbench.training.run import evaluate

        sys.argv = own_argv  # Lightning starts the other processes of a node with it
        try:
            if name == "bench":
                return bench(config)
            return {"run": run.run, "eval": evaluate}[name](config).primary
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


def _flow(arguments: argparse.Namespace) -> int:
    from vgbench.training import flow

    if arguments.multirun or arguments.cfg not in (None, "job"):
        raise UserError("a flow goes with neither -m nor --cfg hydra; call it once per value, or use --cfg job")
    return flow.run(arguments.overrides, show=arguments.cfg == "job")


def _method_of(arguments: argparse.Namespace) -> list[str]:
    """The overrides of ``vgbench export``, with the method that the checkpoint itself names."""
    from vgbench.training import weights

    path = Path(arguments.checkpoint)
    overrides: list[str] = list(arguments.overrides)
    if path.exists() and not any(item.startswith("method=") for item in overrides):
        stored = weights.method_config(weights.resolve(str(path))) or {}
        name = str(stored.get("_target_", "")).removeprefix("vgbench.methods.").partition(".")[0]
        return [f"method={name}", *overrides] if name else overrides
    return overrides


def _run(arguments: argparse.Namespace) -> int:
    for spec in getattr(arguments, "plugin", ()):
        from vgbench.config import plugins

        plugins.load(spec)
    if arguments.command == "run" and any(item.startswith("flow=") for item in arguments.overrides):
        return _flow(arguments)
    if arguments.command in ("run", "eval", "bench"):
        return _hydra(arguments.command, arguments)
    if arguments.command == "conform":
        from vgbench.cli.conform import main as conform

        return conform(arguments.cases, arguments.device, arguments.precision, arguments.json)
    if arguments.command == "compare":
        from vgbench.cli import compare

        return compare.main(
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
        from vgbench.cli import reproduce
        from vgbench.reproduce.plan import OWN_KEYS

        own, overrides = split_overrides(arguments.overrides, *OWN_KEYS)
        return reproduce.main(
            own,
            overrides,
            dry_run=arguments.dry_run,
            commit_to=arguments.commit_to,
            json_file=arguments.json,
            strict=arguments.strict,
        )
    if arguments.command == "new":
        from vgbench.cli import new as skeleton

        return skeleton.main(arguments.kind, arguments.name, arguments.folder)
    if arguments.command == "list":
        from vgbench.cli.list import print_catalog

        return print_catalog(arguments.what)
    if arguments.command == "data":
        from vgbench.cli import data

        return data.main(arguments.action, arguments.overrides, arguments.decode, arguments.strict, arguments.yes)
    if arguments.command == "score":
        from vgbench.cli import score

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
    from vgbench.cli.export import export
    from vgbench.cli.predict import predict

    if arguments.command == "export":
        config = compose([*_method_of(arguments), f"checkpoint={arguments.checkpoint}"])
        return export(config, arguments.file, arguments.half, arguments.slim)
    return predict(arguments.image, arguments.expression, compose(arguments.overrides), arguments.output)


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
        print(f"vgbench: error: {one_line(error)}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("vgbench: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        hint = config_hint(error, arguments) if is_config_error(error) else place_hint(error)
        if arguments.debug or hint is None:
            raise
        print(f"vgbench: error: {hint}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
