"""``vgbench doctor``: what works on this machine, what is missing, and the command that gets it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from vgbench.cli.doctor_files import of_dataset, of_method
from vgbench.core.errors import UserError
from vgbench.core.processes import usable_cores
from vgbench.core.registry import datasets, methods

NAME = "doctor"
HELP = "Show versions, device, disk, extras, and the files that each method and dataset lacks, with their addresses."
EXAMPLE = "vgbench doctor --data-root data"
TAKES_PLUGINS = True

NAMES = {"opencv-python-headless": "cv2", "pillow": "PIL", "hydra-core": "hydra"}  # of packages called otherwise


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of this command."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these methods and data sets (default: all)")
    parser.add_argument("--data-root", type=Path, help="look for the datasets below this folder")
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(arguments: Namespace) -> int:
    """Look, print; always 0.

    Raises:
        UserError: if a name is of no method and no data set.
    """
    chosen = set(arguments.names)
    if unknown := sorted(chosen - {*methods, *datasets}):
        raise UserError(f"doctor: no method and no data set is called {', '.join(unknown)}; vgbench list names them")
    root: Path | None = arguments.data_root
    report: dict[str, Any] = {}
    if not chosen:
        report = {"versions": versions(), "machine": machine(), "extras": extras()}
    states = {
        "methods": {name: of_method(name, root) for name in methods if name in chosen or not chosen},
        "datasets": {name: of_dataset(name, root) for name in datasets if name in chosen or not chosen},
    }
    report |= {title: {name: state.summary for name, state in group.items()} for title, group in states.items()}
    if arguments.json:
        entries = {name: state.entries for group in states.values() for name, state in group.items() if state.entries}
        print(json.dumps({**report, "files": entries}, indent=1))
        return 0
    for title, lines in report.items():
        if lines:
            print(f"{title}:")
        for name, line in lines.items():
            print(f"  {name:14} {line}")
            if title in states:
                print(*(f"    {entry}\n" for entry in states[title][name].lines()), sep="", end="")
    return 0


def versions() -> dict[str, str]:
    """Python and the packages that a run depends on; "missing" where one is not installed."""
    needs = ("torch", "torchvision", "lightning", "transformers", "hydra-core", "numpy", "pyarrow", "pycocotools")
    numbers = {"python": platform.python_version()}
    for name in needs:
        try:
            numbers[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            numbers[name] = "missing: pip install vgbench"
    return numbers


def machine() -> dict[str, str]:
    """Device, cores, disk and caches."""
    cache = Path(os.environ.get("VGBENCH_CACHE") or Path.home() / ".cache" / "vgbench")
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    used = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) / 1e9 if cache.is_dir() else 0.0
    return {
        "device": _device(),
        "cores": str(usable_cores()),
        "disk here": f"{free:.1f} GB free" + ("; a run of a large model needs 10" if free < 10 else ""),
        "cache": f"{cache}, {used:.2f} GB (VGBENCH_CACHE=FOLDER moves it)",
    }


def _device() -> str:
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is missing: pip install vgbench"
    import torch

    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    return "CPU only (no CUDA device, or a PyTorch without CUDA)"


def extras() -> dict[str, str]:
    """The optional parts: "there", or the command that installs them."""
    try:
        lines = importlib.metadata.requires("vgbench") or []
    except importlib.metadata.PackageNotFoundError:  # vgbench-core has none
        return {}
    packages: dict[str, list[str]] = {}
    for line in lines:
        match = re.search(r"""extra == ["'](\w+)["']""", line)
        if match and match[1] not in ("dev", "docs"):
            packages.setdefault(match[1], []).append(re.split(r"[<>=!~;\[ ]", line)[0])
    return {
        name: "there" if all(map(_installed, needs)) else f'missing: pip install "vgbench[{name}]"'
        for name, needs in sorted(packages.items())
    }


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
