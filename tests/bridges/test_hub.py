"""Runs go to the Hub and come back by name, against a stand-in server; what is refused is one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bridges.hub_server import HubServer, serving
from vgbench import UserError
from vgbench.bridges.hub import push

pytest.importorskip("huggingface_hub")

WEIGHTS = Path(__file__).parents[2] / "methods" / "alvg" / "weights" / "refshapes.safetensors"
RECORD = Path(__file__).parents[2] / "leaderboards" / "results" / "refshapes" / "alvg-refshapes-shipped" / "record.json"
Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def server() -> Iterator[HubServer]:
    with serving() as started:
        yield started


@pytest.fixture
def call(server: HubServer, tmp_path: Path) -> Call:
    """Python in a process of its own: huggingface_hub reads its environment when it is imported."""
    environment = {**os.environ, "HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "hub")}
    environment |= {"HF_TOKEN": "hf_secret", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    environment |= {"VGBENCH_CACHE": str(tmp_path / "cache")}

    def python(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        options = {"env": environment | more, "cwd": tmp_path, "capture_output": True, "text": True, "check": False}
        return subprocess.run([sys.executable, *arguments], **options)  # type: ignore[call-overload]

    return python


FETCH = """
import sys
from pathlib import Path
from vgbench import UserError
from vgbench.core.hub import dataset_root, local_path
for place in sys.argv[1:]:
    try:
        print(dataset_root(place, Path("cache")) if "/datasets/" in place else local_path(place))
    except UserError as error:
        print(error)
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a model; its record names places of this machine."""
    folder = tmp_path / "runs" / "alvg-refshapes"
    folder.mkdir(parents=True)
    shutil.copy(WEIGHTS, folder / "model.safetensors")
    record = json.loads(RECORD.read_text())
    record["config"]["dataset"]["data_root"] = "/home/jane/data"
    record["config"]["method"]["tokenizer"] = "/home/jane/beit3.spm"
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def test_a_run_is_pushed_with_a_card_and_read_back_by_name(run: Path, call: Call, server: HubServer) -> None:
    done = call("-m", "vgbench.cli", "push", str(run), "hf://team/alvg")
    assert done.returncode == 0, (done.stderr, server.unknown)
    assert server.tokens - {""} == {"Bearer hf_secret"}  # some versions ask a thing or two without it
    files = server.repositories["models/team/alvg"]
    assert set(files) == {"README.md", "record.json", "model.safetensors"}
    assert files["model.safetensors"] == WEIGHTS.read_bytes()
    assert b"jane" not in files["record.json"] and b"hf_secret" not in b"".join(files.values())
    card = files["README.md"].decode()
    assert "| refshapes unc | val | rec | prec@0.5 | 81.05 | 79.16 to 82.85 | 3151 |" in card
    assert "CC0 1.0" in card and "checkpoint=hf://team/alvg" in card

    exported = ["export", "hf://team/alvg", "copy.safetensors", "method=alvg", "dataset=refshapes"]
    back = call("-m", "vgbench.cli", *exported)
    assert back.returncode == 0, back.stderr
    (folder,) = call("-c", FETCH, "hf://team/alvg", HF_HUB_OFFLINE="1").stdout.split()
    assert (Path(folder) / "model.safetensors").read_bytes() == WEIGHTS.read_bytes()


def test_a_dataset_lies_below_its_root_under_its_own_name(call: Call, server: HubServer, tmp_path: Path) -> None:
    server.repositories["datasets/lab/refcoco"] = {"data/val-0.parquet": b"rows"}
    done = call("-c", FETCH, "hf://datasets/lab/refcoco")
    assert done.stdout.strip() == "cache/hub/lab/newest", done.stderr
    assert (tmp_path / "cache/hub/lab/newest/refcoco/data/val-0.parquet").read_bytes() == b"rows"


def test_what_the_hub_refuses_is_one_line(run: Path, call: Call, server: HubServer) -> None:
    server.repositories["models/team/empty"] = {"README.md": b"x"}
    places = ["hf://team/nothing", "hf://team/empty/model.bin", "hf://team", "hf://team//x"]
    lines = call("-c", FETCH, *places).stdout.splitlines()
    words = ["no such model on the Hub", "has no file model.bin", "no address on the Hub", "no address on the Hub"]
    assert [word in line for word, line in zip(words, lines, strict=True)] == [True] * 4, lines
    offline = call("-c", FETCH, "hf://team/alvg", HF_HUB_OFFLINE="1").stdout
    assert offline.startswith("hf://team/alvg: not in the cache") and offline.count("\n") == 1
    with pytest.raises(UserError, match="a run is pushed to hf://ORG/NAME"):
        push(run, "hf://team/alvg/file")
    with pytest.raises(UserError, match=r"record\.json: no such file"):
        push(run.parent, "hf://team/alvg")


def test_a_vocabulary_by_name(server: HubServer, call: Call) -> None:
    words = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nmug\n"
    server.repositories["models/google-bert/bert-base-uncased"] = {"vocab.txt": words.encode()}
    code = "import sys; from vgbench.text.wordpiece import WordPiece; print(len(WordPiece.from_file(sys.argv[1])))"
    done = call("-c", code, "hf://google-bert/bert-base-uncased/vocab.txt")
    assert done.stdout.strip() == "6", done.stderr
