"""A conformance case on disk."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load, load_file
from torch import Tensor

from vgbench.core.errors import UserError
from vgbench.core.files import ordinary_file


class ModeNotOffered(Exception):
    """The case tests an option of the official code that we left out on purpose; the message says why."""


@dataclass
class Case:
    """One conformance folder.

    Attributes:
        path: the folder.
        device: where to run; inputs lie there.
        precision: "fp32" or "bf16".
    """

    path: Path
    device: str = "cpu"
    precision: str = "fp32"

    @cached_property
    def spec(self) -> dict[str, Any]:
        """Content of case.yaml."""
        file = self.path / "case.yaml"
        try:
            return yaml.safe_load(ordinary_file(file).read_text())
        except FileNotFoundError:
            raise UserError(f"{file}: no such file; a conformance case is a folder with case.yaml") from None
        except yaml.YAMLError as error:
            raise UserError(f"{file}: not valid YAML ({' '.join(str(error).split())})") from None

    def _tensors(self, name: str) -> dict[str, Tensor]:
        return self.read(f"{name}.safetensors")

    def read(self, name: str) -> dict[str, Tensor]:
        """The tensors of a safetensors file of the case, plain or gzipped (``<name>.gz``).

        Raises:
            UserError: if there is neither file, or it cannot be read.
        """
        file = self.path / name
        compressed = self.path / f"{name}.gz"
        if not file.exists() and not compressed.exists():
            raise UserError(f"{file}: no such file; the case is incomplete")
        try:
            if file.exists():
                return load_file(ordinary_file(file))
            return load(gzip.decompress(ordinary_file(compressed).read_bytes()))
        except Exception as error:
            raise UserError(f"{file}: not a safetensors file ({error})") from None

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """The official state dict, on the CPU."""
        return self._tensors("weights")

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """Inputs of the network, targets and recorded draws, on the device."""
        return {name: value.to(self.device) for name, value in self._tensors("inputs").items()}

    @cached_property
    def expected(self) -> dict[str, Tensor]:
        """What the official code computed, on the CPU."""
        return self._tensors("expected")

    def on_cpu(self) -> Case:
        """The same case on the CPU, where transforms and decisions of evaluators run whatever the device."""
        return Case(self.path)

    def text(self, name: str) -> list[str]:
        """Decode a uint8 tensor of zero-padded UTF-8 strings, [n, bytes] or [bytes]."""
        value = self.inputs[name].cpu()
        rows = value if value.ndim == 2 else value[None]
        return [bytes(row.tolist()).rstrip(b"\0").decode() for row in rows]
