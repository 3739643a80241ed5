"""Pickles that hold NumPy's numbers and arrays are read as plain ones, and nothing else of NumPy is."""

import pickle
from collections import OrderedDict, defaultdict

import numpy as np
import pytest

from vgbench.core.arrays import load_plain

VALUES = {
    "ids": [np.int64(3), np.int32(-2), np.uint8(255), np.bool_(True)],
    "numbers": [np.float64(0.5), np.float32(0.25), np.float16(2)],
    "text": np.str_("guy, far left\u00e9"),
    "box": np.array([1.5, 2, 3, 4]),
    "table": np.arange(6).reshape(2, 3),
    "texts": np.array(["a", "bcd"]),
    "objects": np.array(["left", 3, None], dtype=object),
    "empty": np.zeros((0, 4)),
    "swapped": np.array([1, 2], dtype=">i4"),
    "ordered": OrderedDict([("b", 1), ("a", np.int64(2))]),
    "default": defaultdict(list, {1: [2]}),
}
PLAIN = {
    "ids": [3, -2, 255, True],
    "numbers": [0.5, 0.25, 2.0],
    "text": "guy, far left\u00e9",
    "box": [1.5, 2.0, 3.0, 4.0],
    "table": [[0, 1, 2], [3, 4, 5]],
    "texts": ["a", "bcd"],
    "objects": ["left", 3, None],
    "empty": [],
    "swapped": [1, 2],
    "ordered": {"b": 1, "a": 2},
    "default": {1: [2]},
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_numpy_values_are_plain_ones(tmp_path, protocol):
    path = tmp_path / "refs.p"
    path.write_bytes(pickle.dumps(VALUES, protocol=protocol))
    values = load_plain(path)
    assert values == PLAIN
    assert [type(value) for value in values["ids"]] == [int, int, int, bool] and type(values["text"]) is str
    assert list(values["ordered"]) == ["b", "a"]


def test_numpy_1_and_python_2_are_read(tmp_path):
    path = tmp_path / "refs.p"
    written = pickle.dumps({"id": np.int64(7)}, protocol=2)
    path.write_bytes(written.replace(b"numpy._core", b"numpy.core"))
    assert load_plain(path) == {"id": 7}
    # numpy.int64(7) as Python 2 wrote it: the eight bytes are a text
    path.write_bytes(
        b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x02i8K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbU\x08\x07\x00\x00\x00\x00\x00\x00\x00\x86R."
    )
    assert load_plain(path) == 7


class Harmful:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Harmful(), "it refers to builtins.print, which could run code"),
        (np.array([1 + 2j]), "NumPy type 'c16'"),
        (np.datetime64("2024-01-01"), "NumPy type 'M8'"),
        (np.asfortranarray(np.arange(6).reshape(2, 3)), "Fortran order"),
        (np.zeros(2, dtype=[("a", "i4"), ("b", "i4")]), "NumPy type 'V8'"),
    ],
)
def test_everything_else_is_refused(tmp_path, capsys, value, words):
    path = tmp_path / "refs.p"
    path.write_bytes(pickle.dumps([value]))
    with pytest.raises(pickle.UnpicklingError) as error:
        load_plain(path)
    assert words in str(error.value) and "run" not in capsys.readouterr().out


def test_a_few_opcodes_do_not_make_gigabytes(tmp_path):
    data = bytes(200_000)
    # the same text made bytes again, thousands of times
    body = b"\x80\x02]q\x00X" + len(data).to_bytes(4, "little") + data + b"q\x010("
    body += b"c_codecs\nencode\nq\x02h\x01X\x06\x00\x00\x00latin1\x86R0" * 5_000 + b"."
    path = tmp_path / "refs.p"
    path.write_bytes(body)
    with pytest.raises(pickle.UnpicklingError, match=r"more NumPy values|out of proportion|without end"):
        load_plain(path)
