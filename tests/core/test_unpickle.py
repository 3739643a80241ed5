"""Pickles that are small on disk and ask for all memory, all time, or the stack of the interpreter."""

import os
import pickle
import random
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from vgbench.core.opcodes import SuspiciousPickle, survey
from vgbench.core.torch_files import DamagedFile, load_torch
from vgbench.core.unpickle import RefusedObject, load_pickle

MULTIPLE = 2**61 - 1  # of this number all whole numbers have the hash 0


class Bytes:
    def __reduce__(self) -> Any:
        return bytearray, (8_000_000_000,)


class Hostile:
    def __reduce__(self) -> Any:
        return os.mkdir, ("EXECUTED",)


def put_far() -> bytes:
    return b"\x80\x02]r" + struct.pack("<I", 500_000_000) + b"."  # 8 GB of an unpickler's memory


def doubled_tuples(levels: int) -> bytes:
    """A dictionary whose key is ((...), (...)), ``levels`` deep: its hash is computed 2^levels times."""
    body = b"}" + b")q\x00" + b"".join(b"h" + bytes([n]) + b"\x86q" + bytes([n + 1]) for n in range(levels))
    return b"\x80\x02" + body + b"K\x01s."


def deep_tuples() -> bytes:
    return b"\x80\x02})" + b"\x85" * 1_000_000 + b"K\x01s."


def colliding() -> bytes:
    return pickle.dumps({MULTIPLE * (number + 2): 1 for number in range(20_000)}, 2)


def grown_lists() -> bytes:
    grown: list[Any] = [1]
    for _ in range(60):
        grown = [grown, grown]
    return pickle.dumps(grown, 4)


def itself() -> bytes:
    value: list[Any] = []
    value.append(value)
    return pickle.dumps(value, 2)


BOMBS = {
    "memo index": put_far(),
    "memo index as text": b"]p500000000\n.",
    "doubled tuples": doubled_tuples(60),
    "deep tuples": deep_tuples(),
    "equal hashes": colliding(),
    "grown lists": grown_lists(),
    "itself": itself(),
    "long bytes": b"\x80\x04\x96" + struct.pack("<Q", 1 << 40) + b".",
    "long number": b"\x80\x02\x8b" + struct.pack("<i", 1 << 20) + b"\x01" * (1 << 20) + b".",
    "two numberings": b"\x80\x04]\x94]r\x05\x00\x00\x00.",
    "persistent": b"\x80\x02K\x01Q.",
    "extension": b"\x80\x02\x82\x01.",
    "nothing on the stack": b"\x80\x02\x86.",
    "no mark": b"\x80\x02t.",
    "cut off": pickle.dumps([1, 2, 3])[:-1],
    "empty": b"",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_are_lit(name: str, tmp_path: Path) -> None:
    file = tmp_path / "x.pkl"
    file.write_bytes(BOMBS[name])
    with pytest.raises((pickle.UnpicklingError, EOFError)):
        load_pickle(file)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_picklers_write_is_read(protocol: int, tmp_path: Path) -> None:
    words = ["the", "cup", "été", "x" * 300, "a\nb"]
    one = {"box": [1.5, -2, 2**40, 2**70], "words": words, "none": None, "yes": True, "pair": (1, (2, words[0]))}
    value = [one, one, {(1, "a"): b"bytes", "set": {1, 2}}, *({"n": number} for number in range(2000)), ()]
    file = tmp_path / "x.pkl"
    file.write_bytes(pickle.dumps(value, protocol))
    allowed = {("builtins", "set"): set, ("_codecs", "encode"): lambda text, code: text.encode(code)}
    assert load_pickle(file, allowed) == value
    assert survey(file.read_bytes()).shares and not survey(pickle.dumps(["a", "a", [1]], protocol)).shares


def test_bytes_changed_anywhere_never_get_past_the_survey_and_take_more(tmp_path: Path) -> None:
    whole = pickle.dumps([{"box": [1, 2, 3, 4], "text": "the cup", "pair": (1, 2)}] * 3, 2)
    generator = random.Random(0)
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(generator.randrange(1, 4)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        try:
            survey(bytes(damaged))
        except SuspiciousPickle as error:
            assert "\n" not in str(error)


def test_files_of_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file, state = tmp_path / "x.pth", {"a": torch.arange(4.0), "b": [1, (2, "c")]}
    for new in (True, False):
        torch.save(state, file, _use_new_zipfile_serialization=new)
        assert load_torch(file)["b"] == state["b"] and load_torch(file, mapped=True)["a"].tolist() == [0, 1, 2, 3]
        torch.save({"x": Hostile()}, file, _use_new_zipfile_serialization=new)
        with pytest.raises(RefusedObject, match="mkdir"):
            load_torch(file)
        torch.save({"x": bytearray(b"12")}, file, _use_new_zipfile_serialization=new)
        assert load_torch(file) == {"x": bytearray(b"12")}
        torch.save({"x": Bytes()}, file, _use_new_zipfile_serialization=new)  # eight gigabytes of them
        with pytest.raises(DamagedFile, match="bytes by their number"):
            load_torch(file)
        torch.save(state, file, _use_new_zipfile_serialization=new)
        whole = file.read_bytes()
        for length in (0, 1, 30, len(whole) // 2, len(whole) - 30):
            file.write_bytes(whole[:length])
            with pytest.raises(pickle.UnpicklingError):
                load_torch(file)
    assert not Path("EXECUTED").exists()


def zip_with(file: Path, content: bytes, compression: int) -> None:
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("x/data.pkl", content)
        archive.writestr("x/version", b"3\n")


def test_zip_files_with_bombs(tmp_path: Path) -> None:
    file = tmp_path / "x.pth"
    for content in (put_far(), doubled_tuples(60), deep_tuples()):
        zip_with(file, content, zipfile.ZIP_STORED)
        with pytest.raises(DamagedFile):
            load_torch(file)
    zip_with(file, b"\x80\x02]" + b"N" * 10_000_000 + b".", zipfile.ZIP_DEFLATED)
    assert file.stat().st_size < 100_000
    with pytest.raises(DamagedFile, match="compressed"):
        load_torch(file)
