"""``vgbench data``: verify what is on disk, build the embedded data and the caches."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hydra.utils import instantiate

from vgbench.cli import compose
from vgbench.dataset import GroundingData
from vgbench.errors import UserError


def main(action: str, overrides: Sequence[str], decode: bool, strict: bool) -> int:
    """Run one action; 1 with ``strict`` if ``verify`` finds anything that is not as published."""
    if action == "list":
        from vgbench.catalog import print_catalog

        return print_catalog("datasets")
    if not any(item.startswith("dataset=") for item in overrides):
        raise UserError(f"data {action}: say which: dataset=NAME (vgbench list datasets)")
    split = next((item.partition("=")[2] for item in overrides if item.startswith("split=")), None)
    data: GroundingData = instantiate(compose([o for o in overrides if not o.startswith("split=")]).dataset)
    if action == "build":
        for name in data.parse_splits(split):
            print(f"{data.name} {name}: {len(data.load(name)):,} expressions")
        return 0
    report = data.verify(decode=decode, splits=split)
    print("\n".join(report.lines()), file=sys.stdout)
    return 1 if strict and not report.ok else 0
