"""Python, packages, code and hardware of this process."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

from vgbench.core.processes import usable_cores
from vgbench.records.record import Code, Environment, Hardware

PACKAGES = (
    "vgbench",
    "torch",
    "torchvision",
    "lightning",
    "torchmetrics",
    "transformers",
    "timm",
    "hydra-core",
    "numpy",
    "scipy",
    "pyarrow",
    "pycocotools",
    "opencv-python-headless",
    "sentencepiece",
    "safetensors",
)


def environment() -> Environment:
    """Python, package versions, commit and hardware of this process. Imports nothing: a GPU is reported only where
    torch is loaded already."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Environment(platform.python_version(), platform.platform(), packages, _code(), _hardware())


def _code() -> Code:
    here = Path(__file__).resolve()

    def git(*arguments: str) -> str | None:
        try:
            command = ["git", "-C", str(here.parent), *arguments]
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy may lie inside somebody else's repository: ours is the one that tracks this very file.
    if git("ls-files", "--error-unmatch", here.name) is None:
        return Code()
    return Code(git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no")))


def _hardware() -> Hardware:
    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    except OSError:
        pass
    try:
        memory: int | None = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        memory = None
    torch = sys.modules.get("torch")
    gpus = torch.cuda.device_count() if torch is not None and torch.cuda.is_available() else 0
    gpu = torch.cuda.get_device_name(0) if torch is not None and gpus else None
    return Hardware(cpu, usable_cores(), memory, gpu, gpus)
