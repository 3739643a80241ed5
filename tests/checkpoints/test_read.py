"""Checkpoints are read whatever wrapped the model and whatever inert objects lie beside its weights."""

import argparse
import collections
import datetime
import enum
import itertools
import pathlib
import pickle
import random
import uuid
from fractions import Fraction

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from packaging.version import Version
from safetensors.torch import save_file

from vgbench.checkpoints.read import read_checkpoint
from vgbench.core.errors import UserError

WEIGHTS = {"encoder.0.weight": torch.arange(6.0).view(2, 3), "head.bias": torch.ones(2)}
WRAPPERS = ("module.", "_orig_mod.", "model.")


def same(state):
    return set(state) == set(WEIGHTS) and all(torch.equal(state[name], value) for name, value in WEIGHTS.items())


@pytest.mark.parametrize("prefix", ["".join(p) for n in range(4) for p in itertools.permutations(WRAPPERS, n)])
def test_prefixes_of_wrappers_come_off_in_any_order(prefix, tmp_path):
    wrapped = {prefix + name: value for name, value in WEIGHTS.items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, tmp_path / "a.pth")
    save_file(wrapped, tmp_path / "a.safetensors")
    assert same(read_checkpoint(tmp_path / "a.pth"))
    assert same(read_checkpoint(tmp_path / "a.safetensors"))


def test_what_was_compiled_or_sharded_by_parts_has_its_plain_names(tmp_path):
    parts = {name.replace("encoder.", "encoder._orig_mod._fsdp_wrapped_module."): v for name, v in WEIGHTS.items()}
    torch.save({f"model.{name}": value for name, value in parts.items()}, tmp_path / "a.pth")
    assert same(read_checkpoint(tmp_path / "a.pth"))


def test_names_of_real_wrappers(tmp_path):
    inner = torch.nn.Sequential(torch.nn.Linear(2, 2))
    average = torch.optim.swa_utils.AveragedModel(torch.compile(inner))
    torch.save(average.state_dict(), tmp_path / "a.pth")
    assert set(read_checkpoint(tmp_path / "a.pth")) == set(inner.state_dict())


def test_a_part_called_model_stays(tmp_path):
    weights = {"model.a": torch.ones(1), "criterion.b": torch.ones(1), "orig_mod.c": torch.ones(1)}
    torch.save(weights, tmp_path / "a.pth")
    assert set(read_checkpoint(tmp_path / "a.pth")) == set(weights)


class Kind(enum.Enum):
    ONE = 1


INERT = {
    "random state": np.random.get_state(),
    "generators": (np.random.RandomState(0), np.random.default_rng(0), random.Random(1), random.getstate()),
    "scalars": (np.bool_(True), np.float16(1), np.int8(3), np.str_("a"), np.datetime64("2020-01-01"), 1j, 2**90),
    "arrays": (np.zeros(2, np.uint8), np.array([1, "a"], object), np.zeros(2, [("a", "i4")]), np.array(["a", "bc"])),
    "paths": (pathlib.Path("a/b"), pathlib.PureWindowsPath("c:/a"), pathlib.PurePosixPath("a")),
    "versions": (torch.__version__, Version("1.2rc1")),
    "dates": (datetime.datetime.now(datetime.timezone.utc), datetime.date(2020, 1, 2), datetime.timedelta(1)),
    "containers": (
        collections.defaultdict(list, {"a": [1]}),
        collections.deque([1, 2], maxlen=3),
        *(collections.Counter("aab"), frozenset([1]), {1, 2}, slice(1, 2), range(3), bytearray(b"a"), b"a"),
    ),
    "numbers": (Fraction(1, 2), uuid.UUID(int=3), float("nan"), None),
    "options": (argparse.Namespace(output=pathlib.Path("a"), lr=0.1), OmegaConf.create({"a": [1, {"b": 2}]})),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", INERT)
def test_inert_objects_let_the_weights_through(kind, zipped, tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"model": WEIGHTS, kind: INERT[kind]}, path, _use_new_zipfile_serialization=zipped)
    assert same(read_checkpoint(path))


def test_weights_may_lie_in_another_librarys_dictionary(tmp_path):
    torch.save(
        collections.defaultdict(dict, {"state_dict": WEIGHTS, "when": datetime.date(2020, 1, 1)}), tmp_path / "a"
    )
    assert same(read_checkpoint(tmp_path / "a"))


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (Evil(eval, "open('canary', 'w')"), "builtins.eval"),
        (Evil(__import__("os").system, "touch canary"), "posix.system"),
        (Evil(getattr, pathlib.Path("canary"), "touch"), "builtins.getattr"),
        (Kind.ONE, "tests.checkpoints.test_read.Kind"),
        (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
        ([datetime.date(2020, 1, 1), Evil(print, "a")], "builtins.print"),
    ],
)
def test_what_is_refused_is_called_by_its_name(thing, name, zipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": WEIGHTS, "other": thing}, "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=rf"a\.pth: contains the object \S*{name}[, ]"):
        read_checkpoint(pathlib.Path("a.pth"))
    assert not pathlib.Path("canary").exists()


def test_other_pickles_are_refused_in_words_that_help(tmp_path):
    torch.save({"model": WEIGHTS}, tmp_path / "a.pth", pickle_protocol=4)
    with pytest.raises(UserError, match=r"a\.pth: written with pickle protocol 4"):
        read_checkpoint(tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(WEIGHTS))
    with pytest.raises(UserError, match=r"b\.pth: contains the object torch\.storage\._load_from_bytes"):
        read_checkpoint(tmp_path / "b.pth")
