"""The files that methods and data sets lack on this machine: names, public addresses, and what takes them in."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from vgbench.core.errors import UserError
from vgbench.core.registry import datasets, methods

if TYPE_CHECKING:
    from vgbench.data.dataset import GroundingData


class FileEntry(TypedDict):
    """A file that is missing, or where it lies.

    Keys: ``file``: its name; ``use``: what it is for; ``address``: where its authors publish it; ``take_in``: the
    option or the command that takes it in; ``there``: its path if it lies in the working directory or in
    ``--data-root``, else None.
    """

    file: str
    use: str
    address: str
    take_in: str
    there: str | None


class State(NamedTuple):
    """What a method or a data set is ready for, and the files that it lacks or has (none: nothing to say)."""

    summary: str
    entries: list[FileEntry]

    def lines(self) -> list[str]:
        """The entries as text; a command that the summary names is not said again."""
        return [_line(entry, entry["take_in"] not in self.summary) for entry in self.entries]


def _line(entry: FileEntry, take_in: bool) -> str:
    name = entry["file"] + (f" ({entry['use']})" if entry["use"] else "")
    place = f"there, {entry['there']}" if entry["there"] else entry["address"]
    return f"{name}: {place}" + (f" -> {entry['take_in']}" if take_in else "")


def of_method(name: str, root: Path | None) -> State:
    """What a method is ready for, and the files that others publish for it."""
    try:
        method = methods.load(name)
    except ImportError as error:
        return State(f"cannot be imported ({error})", [])
    weights = Path(str(files("vgbench.methods"))) / name / "weights"
    shipped = sorted(file.stem for file in weights.glob("*.safetensors"))
    needs = [f"method.{option}=FILE" for option in sorted(method.required_files)]
    parts = [f"ready for {', '.join(shipped)} (shipped weights)"] if shipped else ["no shipped weights"]
    if needs:
        parts.append(f"for other data give {', '.join(needs)}")
    entries = []
    for file in method.published_files:
        there = file.find([Path(), *([] if root is None else [root])])
        take_in, place = file.setting(there), None if there is None else str(there)
        entries.append(FileEntry(file=file.name, use=file.use, address=file.address, take_in=take_in, there=place))
    return State("; ".join([*parts, "see its card: where weights and vocabularies are"]), entries)


def of_dataset(name: str, root: Path | None) -> State:
    """Whether the annotations of a data set are below ``root``; of what is not, the addresses."""
    from vgbench.data.download import Plan, plan_for

    data: Any = datasets.load(name)
    if data.embedded:
        return State("embedded: generated on first use", [])
    try:
        plan = plan_for(data)
    except UserError:  # nobody knows an address of its files
        plan = Plan([])
    place = "FOLDER" if root is None else str(root)
    fetch = f"by hand: {data.homepage}; then data_root={place}"
    if plan.sources:
        fetch = f"vgbench data download dataset={name} data_root={place}"
    elif plan.hub:
        fetch = f"data_root=hf://datasets/{plan.hub} fetches it (extra: hub)"
    if root is not None and _is_there(name, root):
        return State(f"there; check it: vgbench data verify dataset={name} data_root={root}", [])
    entries = [
        FileEntry(file=source.makes, use="", address=source.url, take_in=fetch, there=None)
        for source in plan.sources
        if root is None or not (root / source.makes).exists()
    ]
    if not plan.sources and (plan.hub or not plan.by_hand):
        wanted = "; or ".join(_built(name, root).expected_files())
        address = f"https://huggingface.co/datasets/{plan.hub}" if plan.hub else data.homepage
        entries.append(FileEntry(file=wanted, use="", address=address, take_in=fetch, there=None))
    for line in plan.by_hand:
        what, _, where = line.partition(": ")
        entries.append(FileEntry(file=what, use="by hand", address=where, take_in=f"data_root={place}", there=None))
    return State(fetch if root is None else f"missing: {fetch}", entries)


def _is_there(name: str, root: Path) -> bool:
    """Whether the annotations of a data set are below ``root``."""
    try:
        built = _built(name, root)
        built.sources(built.evaluation_splits[0])
    except Exception as error:  # Hydra wraps what the data set says
        if not isinstance(error if isinstance(error, UserError) else error.__cause__, UserError):
            raise
        return False
    return True


def _built(name: str, root: Path | None) -> GroundingData:
    """A data set as its configuration has it."""
    from hydra.utils import instantiate

    from vgbench.api.overrides import as_overrides
    from vgbench.config.compose import compose

    return instantiate(compose([f"dataset={name}", *as_overrides({"data_root": root} if root else {})]).dataset)
