"""Files that a method needs and that others publish: what they are called, where they are, what takes them in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PublishedFile:
    """One file (or folder) that does not come with the suite.

    Attributes:
        name: what its authors call it.
        use: what it is for, e.g. "vocabulary" or "start weights of the base size".
        option: what takes it in, e.g. "method.tokenizer" or "checkpoint".
        address: where its authors publish it: the file, or the page that it is on.
        hub: its name on the Hub (``hf://ORG/NAME/FILE``), which the option takes as it is; empty: it has none.
        folder: the option takes the folder that holds it, because other files go with it.
    """

    name: str
    use: str
    option: str
    address: str
    hub: str = ""
    folder: bool = False

    def setting(self, place: Path | None = None) -> str:
        """The option with its value: the name on the Hub, else the file where it lies (``place``) or will lie."""
        if self.folder:
            return f"{self.option}={place.parent if place else 'FOLDER'}"
        return f"{self.option}={place or self.hub or self.name}"

    def find(self, folders: list[Path]) -> Path | None:
        """Where it lies already: in one of ``folders``, under its own name."""
        return next((folder / self.name for folder in folders if (folder / self.name).exists()), None)
