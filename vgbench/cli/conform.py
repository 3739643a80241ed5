"""``vgbench conform``: our methods against what the official code computed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vgbench.conform.run import run_case


def main(paths: Sequence[Path], device: str, precision: str, json_file: Path | None, out: Any = sys.stdout) -> int:
    """Run the cases, print a line each; 1 if a judged case fails, else 0."""
    results = []
    for path in paths:
        result = run_case(path, device, precision)
        results.append(result)
        print(result.line(), file=out, flush=True)
        for name, problem in result.failures.items():
            print(f"     {name}: {problem}", file=out)
    if json_file:
        json_file.write_text(json.dumps([vars(result) for result in results], indent=2))
    failed = [result for result in results if result.judged and not result.passed]
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed", file=out)
    return 1 if failed else 0
