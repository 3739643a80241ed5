"""``vgbench conform``: our methods against what the official code computed."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from vgbench.core.files import write_atomically

NAME = "conform"
HELP = "Compare our methods with what the official code computed."
EXAMPLE = "vgbench conform tests/conformance/alvg-rec-a"
TAKES_PLUGINS = True


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of this command."""
    parser.add_argument("cases", nargs="+", type=Path, metavar="CASE", help="folder with case.yaml and tensors")
    parser.add_argument("--device", default="cpu", help="as PyTorch names it (default: cpu)")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="default: fp32")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results")


def execute(arguments: Namespace) -> int:
    """Run the cases, print a line each; 1 if a judged case fails, else 0."""
    from vgbench.conform.run import run_case

    results = []
    for path in arguments.cases:
        result = run_case(path, arguments.device, arguments.precision)
        results.append(result)
        print(result.line(), flush=True)
        for name, problem in result.failures.items():
            print(f"     {name}: {problem}")
    if arguments.json:
        write_atomically(arguments.json, json.dumps([vars(result) for result in results], indent=2).encode())
    failed = [result for result in results if result.judged and not result.passed]
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0
