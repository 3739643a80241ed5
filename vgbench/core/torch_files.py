"""Files of ``torch.save`` from strangers: tensors, numbers, plain containers, and what an allow-list names."""

from __future__ import annotations

import mmap
import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vgbench.core.files import ordinary_file
from vgbench.core.opcodes import SuspiciousPickle, survey
from vgbench.core.unpickle import RefusedObject

ZIP = b"PK\x03\x04"
MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first pickle of files before torch 1.6
OLD_PICKLES = 5  # of those files: magic number, protocol, system, content, keys of the tensors' numbers


class DamagedFile(pickle.UnpicklingError):
    """It is no whole file of ``torch.save``."""


def load_torch(path: Path, allowed: Sequence[Any] = (), mapped: bool = False) -> Any:
    """What is in a file of ``torch.save``, on the CPU; nothing in it is executed.

    Args:
        path: the file.
        allowed: classes and functions besides tensors and plain containers (``torch.serialization.safe_globals``).
        mapped: leave the numbers on disk until they are looked at, where the format allows it.

    Raises:
        OSError: if the file cannot be read.
        RefusedObject: if it names anything besides ``allowed``.
        DamagedFile: if it is damaged, or would take memory or time out of proportion to its length.
        pickle.UnpicklingError: if it is no such file, or one that torch does not read without running code.
    """
    import torch

    is_zip = _check(path)
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped and is_zip)
    except OSError:
        raise
    except pickle.UnpicklingError as error:
        text = " ".join(str(error).split())
        refused = re.search(r"GLOBAL ([\w.]+)", text)
        raise RefusedObject(refused[1]) if refused else pickle.UnpicklingError(text[:300]) from None
    except Exception as error:  # torch.load has no common error type for damaged files
        raise DamagedFile(f"damaged ({type(error).__name__})") from None


def _check(path: Path) -> bool:
    """Look at the pickles in a file before they are read; returns whether it is a zip file, as torch writes since 1.6.

    Raises:
        OSError, DamagedFile: as :func:`load_torch`.
    """
    try:
        with ordinary_file(path).open("rb") as file:
            head = file.read(len(MAGIC))
            if head.startswith(ZIP):
                _check_zip(path)
                return True
            if head == MAGIC:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    end = 0
                    for _ in range(OLD_PICKLES):
                        end = survey(content, end, persistent=True).end
    except SuspiciousPickle as error:
        raise DamagedFile(str(error)) from None
    return False


def _check_zip(path: Path) -> None:
    """
    Raises:
        DamagedFile, SuspiciousPickle: if it is no zip file, has packed members (a few bytes may stand for a full
            memory, and torch would take them for numbers), or its pickle is not to be trusted.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
                    raise DamagedFile(f"its member {member.filename[:80]!r} is compressed, which torch.save never does")
                if member.filename.endswith(".pkl"):
                    survey(archive.read(member), persistent=True)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        if isinstance(error, SuspiciousPickle):
            raise
        raise DamagedFile(f"damaged: not a whole zip archive ({error})") from None
