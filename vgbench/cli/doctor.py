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
from importlib.resources import files
from pathlib import Path
from typing import Any

from vgbench.core.processes import usable_cores
from vgbench.core.registry import datasets, methods

NAME = "doctor"
HELP = "Show versions, device, disk, extras, and what each method and dataset still lacks here."
EXAMPLE = "vgbench doctor --data-root data"
TAKES_PLUGINS = True

NAMES = {"opencv-python-headless": "cv2", "pillow": "PIL", "hydra-core": "hydra"}  # of packages called otherwise


def add_arguments(parser: ArgumentParser) -> None:
    """Arguments of this command."""
    parser.add_argument("--data-root", type=Path, help="look for the datasets below this folder")
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(arguments: Namespace) -> int:
    """Look, print; always 0."""
    report = {
        "versions": versions(),
        "machine": machine(),
        "extras": extras(),
        "methods": {name: method_lacks(name) for name in methods},
        "datasets": {name: dataset_lacks(name, arguments.data_root) for name in datasets},
    }
    if arguments.json:
        print(json.dumps(report, indent=1))
        return 0
    for title, entries in report.items():
        print(f"{title}:")
        for name, value in entries.items():
            print(f"  {name:14} {value}")
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


def method_lacks(name: str) -> str:
    """What a method needs besides data: files without default, and where its weights come from."""
    try:
        method = methods.load(name)
    except ImportError as error:
        return f"cannot be imported ({error})"
    weights = Path(str(files("vgbench.methods"))) / name / "weights"
    shipped = sorted(file.stem for file in weights.glob("*.safetensors"))
    needs = [f"method.{option}=FILE" for option in sorted(method.required_files)]
    parts = [f"ready for {', '.join(shipped)} (shipped weights)"] if shipped else ["no shipped weights"]
    if needs:
        parts.append(f"for other data give {', '.join(needs)}")
    return "; ".join([*parts, "see its card: where weights and vocabularies are"])


def dataset_lacks(name: str, root: Path | None) -> str:
    """Whether its files are below ``root``; else how they are got."""
    data: Any = datasets.load(name)
    if data.embedded:
        return "embedded: generated on first use"
    known = data.downloads() is not None
    fetch = f"vgbench data download dataset={name} data_root=FOLDER" if known else f"by hand: {data.homepage}"
    if root is None:
        return fetch
    from vgbench.api.overrides import as_overrides
    from vgbench.config.compose import compose
    from vgbench.core.errors import UserError

    try:
        from hydra.utils import instantiate

        built = instantiate(compose([f"dataset={name}", *as_overrides({"data_root": root})]).dataset)
        built.sources(built.evaluation_splits[0])
    except Exception as error:
        cause = error if isinstance(error, UserError) else error.__cause__
        if not isinstance(cause, UserError):
            raise
        return f"missing: {fetch}"
    return f"there; check it: vgbench data verify dataset={name} data_root={root}"
