"""Images in tar files (WebDataset's shards) instead of millions of small files, for storage where those are slow.

``image_root=FOLDER`` with ``*.tar`` files in it, or ``image_root=FILE.tar``: uncompressed, made with any tar program.
Training draws images in an order of its own and must be able to resume it, so shards are read at random: an index of
(shard, offset, size) is made once from the headers and cached; an image is then one seek and one read.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vgbench.core.errors import UserError
from vgbench.core.files import atomic

__all__ = ["ShardImage", "Shards"]


class ShardImage(type(Path())):  # type: ignore[misc]
    """The path of an image inside a shard, e.g. ``train-000.tar/COCO_train2014_000000581857.jpg``; for reading only."""

    shard: Path
    offset: int
    size: int

    @classmethod
    def at(cls, shard: Path, name: str, offset: int, size: int) -> ShardImage:
        image = cls(shard, name)
        image.shard, image.offset, image.size = shard, offset, size
        return image

    def is_file(self, **options: Any) -> bool:
        return True

    def exists(self, **options: Any) -> bool:
        return True

    def open(self, mode: str = "rb", *arguments: Any, **options: Any) -> Any:
        """The image's bytes as a binary file."""
        if mode != "rb":
            raise io.UnsupportedOperation(f"{self}: images in shards are read as bytes only")
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
        self._by_name: dict[str, list[tuple[str, Path, int, int]]] = {}
        for path in paths:
            for name, offset, size in _index(path, cache_dir):
                self._by_name.setdefault(name.rpartition("/")[2], []).append((name, path, offset, size))

    @classmethod
    def below(cls, root: Path, cache_dir: Path) -> Shards | None:
        """Those of ``root`` (a tar file, or a folder with tar files directly in it); None if there are none."""
        paths = [root] if root.suffix == ".tar" and root.is_file() else sorted(root.glob("*.tar"))
        return cls(paths, cache_dir) if paths else None

    def find(self, name: str) -> ShardImage | None:
        """The image called ``name``, in whatever folder inside a shard; a name with folders must end the one inside."""
        for inside, shard, offset, size in self._by_name.get(name.rpartition("/")[2], ()):
            if inside == name or inside.endswith(f"/{name}"):
                return ShardImage.at(shard, inside, offset, size)
        return None


def _index(path: Path, cache_dir: Path) -> list[tuple[str, int, int]]:
    """(name, offset, size) of the files in a tar file, remembered by its path, size and modification time."""
    stat = path.stat()
    place = str(path.resolve())
    state = [place, stat.st_size, stat.st_mtime_ns]
    memo = cache_dir / "shards" / f"{hashlib.sha256(place.encode()).hexdigest()[:24]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(memo.read_text())
        if known["state"] == state:
            return [(name, offset, size) for name, offset, size in known["files"]]
    try:
        with tarfile.open(path, "r:") as opened:
            files = [(member.name, member.offset_data, member.size) for member in opened if member.isfile()]
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{path}: not an uncompressed tar file ({error})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if files and files[-1][1] + files[-1][2] > stat.st_size:
        raise UserError(f"{path}: truncated: {files[-1][0]!r} goes on behind its end; make or copy it again")
    with contextlib.suppress(OSError), atomic(memo) as temporary:
        temporary.write_text(json.dumps({"state": state, "files": files}))
    return files
