"""Images in tar files (WebDataset's shards) instead of millions of small files, for storage where those are slow.

``image_root=FOLDER`` with ``*.tar`` files in it, or ``image_root=FILE.tar``: uncompressed, made with any tar program.
Training draws images in an order of its own and must be able to resume it, so shards are read at random: an index of
(shard, offset, size) is made once from the headers and cached; an image is then one seek and one read.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from vgbench.core.errors import UserError
from vgbench.core.files import ordinary_file
from vgbench.data.cache import memo_of, remembered

__all__ = ["ShardImage", "Shards"]


@dataclass(frozen=True)
class ShardImage:
    """An image inside a shard (an :class:`~vgbench.data.images.ImageFile`): ``size`` bytes from ``offset`` on."""

    shard: Path
    member: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard}/{self.member}"

    @property
    def name(self) -> str:
        return self.member.rpartition("/")[2]

    def open(self, mode: Literal["rb"] = "rb") -> BinaryIO:
        """The image's bytes as a binary file."""
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return io.BytesIO(file.read(self.size))


class Shards:
    """All images of some tar files.

    Args:
        paths: the tar files.
        cache_dir: where their indices are kept.

    Raises:
        UserError: if one of them is no whole, uncompressed tar file.
    """

    def __init__(self, paths: Iterable[Path], cache_dir: Path) -> None:
        self._by_name: dict[str, list[ShardImage]] = {}
        for path in paths:
            for name, offset, size in _index(path, cache_dir):
                image = ShardImage(path, name, offset, size)
                self._by_name.setdefault(image.name, []).append(image)

    @classmethod
    def below(cls, root: Path, cache_dir: Path) -> Shards | None:
        """Those of ``root`` (a tar file, or a folder with tar files directly in it); None if there are none."""
        paths = [root] if root.suffix == ".tar" and root.is_file() else sorted(root.glob("*.tar"))
        return cls(paths, cache_dir) if paths else None

    def find(self, name: str) -> ShardImage | None:
        """The image called ``name``, in whatever folder inside a shard; a name with folders must end the one inside."""
        for image in self._by_name.get(name.rpartition("/")[2], ()):
            if image.member == name or image.member.endswith(f"/{name}"):
                return image
        return None


def _index(path: Path, cache_dir: Path) -> list[tuple[str, int, int]]:
    """(name, offset, size) of the files in a tar file, remembered by its path, size and modification time."""
    stat = path.stat()
    state = [str(path.resolve()), stat.st_size, stat.st_mtime_ns]
    return remembered(memo_of(path, cache_dir / "shards"), state, lambda: _read_index(path, stat.st_size))


def _read_index(path: Path, size: int) -> list[tuple[str, int, int]]:
    try:
        with tarfile.open(ordinary_file(path), "r:") as opened:
            files = [(member.name, member.offset_data, member.size) for member in opened if member.isfile()]
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{path}: not an uncompressed tar file ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if files and files[-1][1] + files[-1][2] > size:
        raise UserError(f"{path}: truncated: {files[-1][0]!r} goes on behind its end; make or copy it again")
    return files
