"""``vgbench bench``: how fast a method trains and predicts here, where the time goes, and how far from the peak.

Images are made up, weights are random: speed does not depend on them. The device's peak is measured in the same run
as the rate of one large matrix product, so the share says what is left to gain on this very machine.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from vgbench.bench import measure
from vgbench.bench.combination import Combination, device_name, measured
from vgbench.bench.loading import loading_rate
from vgbench.core.files import write_atomically
from vgbench.core.terminal import output_lines
from vgbench.method import GroundingMethod
from vgbench.training.speed import set_float32

__all__ = ["bench"]


def bench(config: DictConfig) -> None:
    """Measure every combination of ``bench.precision``, ``bench.compile`` and ``bench.options``; print one table, and
    those of the method itself; optionally write JSON. With a suite, measure that instead.
    """
    if config.suite.get("items"):
        from vgbench.bench.suite import run_suite

        return run_suite(config)
    options = config.bench
    if options.threads:
        torch.set_num_threads(options.threads)
    device = measure.device_of(config.trainer.accelerator)
    rows: list[dict[str, Any]] = []
    for precision in options.precision:
        peak = _peak(precision, device)
        for choice, changes in itertools.product(options.compile, options.options):
            compiled = device.type == "cuda" if choice == "auto" else bool(choice)
            row = {"precision": precision, "compile": compiled, "batch": options.batch_size}
            if len(options.options) > 1:
                row["options"] = ", ".join(f"{key}={value}" for key, value in changes.items()) or "as configured"
            combination = Combination(
                config, precision, compiled, changes, options.batch_size, checkpointing=options.checkpointing
            )
            rows.append(row | measured(combination, device, peak))
    method: GroundingMethod = instantiate(config.method)
    loading = loading_rate(method, tuple(options.image))
    tables = method.to(device).bench_tables(device, options.batch_size)
    name = device_name(device)
    print(f"device: {name}")
    cells = [{key: _cell(value) for key, value in row.items()} for row in rows]
    output_lines([[key, *(row.get(key, "") for row in cells)] for key in _keys(cells)])
    print(_loading_line(loading, tuple(options.image), rows))
    for title, lines in tables.items():
        keys = _keys(lines)
        output_lines([[_cell(line.get(key, "")) for key in keys] for line in lines], keys, title)
    if options.json:
        result = {"device": name, "loading samples/s per worker": loading, "rows": rows, "tables": tables}
        write_atomically(Path(str(options.json)), json.dumps(result, indent=1).encode())


def _loading_line(rate: float, size: tuple[int, ...], rows: Sequence[Mapping[str, Any]]) -> str:
    line = f"loading (JPEG, transform, collation): {rate:.1f} samples/s per worker ({size[1]}x{size[0]} px)"
    fastest = max((row.get("train samples/s", 0.0) for row in rows), default=0.0)
    return f"{line}; {math.ceil(fastest / rate)} workers feed {fastest:.0f} samples/s" if fastest else line


def _peak(precision: str, device: torch.device) -> float:
    set_float32(precision)
    return measure.matmul_rate(device, measure.dtype_of(precision))


def _keys(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Keys of all rows, in their order: losses that can be switched off are not in every row."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
