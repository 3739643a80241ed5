"""Images out of tar shards, and tables that are too large for memory."""

import json
import pickle
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from vgbench.core.errors import UserError
from vgbench.data.images import decode_image
from vgbench.data.shards import Shards
from vgbench.data.table import BATCH, SCHEMA, AnnotationTable
from vgbench.data.verify import verify
from vgbench.datasets.refcoco import RefCOCO


def name_of(number: int) -> str:
    return f"COCO_train2014_{number:012d}.jpg"


def write_set(root: Path) -> Path:
    """RefCOCO's files for four images of different colours."""
    numbers = range(101, 105)
    images = [{"id": i, "file_name": name_of(i), "width": 64, "height": 48} for i in numbers]
    annotations = [{"id": i, "image_id": i, "bbox": [1, 2, 20, 20], "category_id": 1} for i in numbers]
    (root / "refcoco").mkdir(parents=True)
    content = {"images": images, "annotations": annotations, "categories": []}
    (root / "refcoco" / "instances.json").write_text(json.dumps(content))
    refs = [
        {"ref_id": i, "ann_id": i, "image_id": i, "split": "val", "sentences": [{"sent_id": i, "raw": "mug"}]}
        for i in numbers
    ]
    (root / "refcoco" / "refs(unc).json").write_text(json.dumps(refs))
    (root / "plain").mkdir()
    for i in numbers:
        Image.new("RGB", (64, 48), (i, 2 * i % 256, 3 * i % 256)).save(root / "plain" / name_of(i))
    return root


def write_shards(root: Path) -> Path:
    """Two shards; one with image names inside a folder, one with COCO 2017's names."""
    (root / "shards").mkdir()
    for shard, names in enumerate(([101, 102], [103, 104])):
        with tarfile.open(root / "shards" / f"train-{shard:03d}.tar", "w") as opened:
            for i in names:
                inside = f"train2014/{name_of(i)}" if shard == 0 else f"{i:012d}.jpg"
                opened.add(root / "plain" / name_of(i), inside)
    return root / "shards"


def test_shards_hold_the_same_images(tmp_path: Path) -> None:
    write_set(tmp_path)
    plain = RefCOCO(tmp_path, image_root=tmp_path / "plain", cache_dir=tmp_path)
    sharded = RefCOCO(tmp_path, image_root=write_shards(tmp_path), cache_dir=tmp_path)
    for row in sharded.load("val"):
        path = sharded.image_path(row.image)
        assert torch.equal(decode_image(path), decode_image(plain.image_path(row.image)))
        assert ".tar/" in str(path)
    report = verify(sharded, splits="val", decode=True)
    assert not report.missing_images and report.checked_images == 4
    one = RefCOCO(tmp_path, image_root=tmp_path / "shards" / "train-000.tar", cache_dir=tmp_path)
    assert verify(one, splits="val").missing_images == [name_of(103), name_of(104)]


def test_the_index_is_made_once_and_follows_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_shards(write_set(tmp_path))
    first = Shards.below(folder, tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(tarfile, "open", lambda *arguments: pytest.fail("a shard was read again"))
        again = Shards.below(folder, tmp_path / "cache")
    assert first is not None and again is not None
    assert again.find(name_of(101)) == first.find(name_of(101)) and again.find(name_of(103)) is None
    with tarfile.open(folder / "train-000.tar", "w") as opened:
        opened.add(tmp_path / "plain" / name_of(104), name_of(104))
    later = Shards.below(folder, tmp_path / "cache")
    assert later is not None and later.find(name_of(101)) is None and later.find(name_of(104)) is not None


def test_damaged_shards_are_named(tmp_path: Path) -> None:
    folder = write_shards(write_set(tmp_path))
    path = folder / "train-001.tar"
    whole = path.read_bytes()
    for content in (b"", b"no tar file at all" * 100, whole[:600], whole[:512]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"train-001\.tar: (not an uncompressed tar file|truncated)"):
            Shards.below(folder, tmp_path / "cache")
    assert Shards.below(tmp_path / "plain", tmp_path) is None


def large(rows: int, batch: int = 250_000) -> AnnotationTable:
    """A synthetic table, made batch by batch."""
    batches = []
    for start in range(0, rows, batch):
        count = min(batch, rows - start)
        ids = np.arange(start, start + count)
        offsets = pa.array(np.arange(count + 1, dtype=np.int32))
        text = pa.array(ids).cast(pa.string())
        empty = pa.array(np.zeros(count + 1, dtype=np.int32))
        boxes = pa.ListArray.from_arrays(
            pa.array(np.arange(0, 4 * count + 1, 4, dtype=np.int32)),
            pa.array(np.tile([1.0, 2.0, 30.0, 40.0], count)),
        )
        columns = {
            **{"key": text, "image_id": pa.array(ids // 5), "image": text, "expression": text, "boxes": boxes},
            **{name: pa.array(np.full(count, 640, dtype=np.int32)) for name in ("width", "height")},
            "masks": pa.ListArray.from_arrays(empty, pa.array([], pa.string())),
            "polygons": pa.ListArray.from_arrays(empty, pa.array([], pa.int32())),
            "ann_ids": pa.ListArray.from_arrays(offsets, pa.array(ids)),
            "categories": pa.ListArray.from_arrays(empty, pa.array([], pa.string())),
            **{name: pa.array(ids) for name in ("ref_id", "sent_id")},
            "group": pa.array(ids // 3),
            **{name: pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), [word]).cast(pa.string())
               for name, word in (("source", "coco"), ("split", "train"))},
        }  # fmt: skip
        batches.append(pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA))
    info = {"dataset": "synthetic", "split": "train", "task": "rec", "sources": {}}
    return AnnotationTable(pa.Table.from_batches(batches), info)


def check_rows(table: AnnotationTable, indices: list[int]) -> None:
    for index in indices:
        row = table.row(index)
        assert (row.key, row.image_id, row.ann_ids, row.group) == (str(index), index // 5, (index,), index // 3)
        assert row.boxes.tolist() == [[1, 2, 30, 40]] and row.boxes.dtype == np.float64


def test_rows_of_many_batches(tmp_path: Path) -> None:
    check_rows(large(1000, batch=64), np.random.default_rng(0).permutation(1000)[:50].tolist())
    rows = BATCH + 100
    made = large(rows)
    made.save(tmp_path / "t.arrow")
    table = AnnotationTable.open(tmp_path / "t.arrow")
    assert len(table) == rows and len(table.arrow.column("key").chunks) == 2 and table.arrow.schema == SCHEMA
    check_rows(table, [0, 1, BATCH - 1, BATCH, rows - 1, *np.random.default_rng(0).permutation(rows)[:50].tolist()])
    assert table.row(-1).key == str(rows - 1)
    again = pickle.loads(pickle.dumps(table))  # a worker process that is started afresh
    assert again.row(BATCH).key == str(BATCH) and again.arrow.equals(table.arrow)
    del table.__dict__["hash"]
    assert table.hash == made.hash
    check_rows(table.take([5]), [])
    assert table.take([5, 3]).row(0).key == "5"


def test_a_row_that_has_rotted_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.arrow"
    large(10).save(path)
    content = path.read_bytes()
    assert content.count(b'["3",') == 1
    path.write_bytes(content.replace(b'["3",', b'["3"\0'))
    with pytest.raises(UserError, match=r"t\.arrow: not an annotation table .*; delete it, it is built again"):
        AnnotationTable.open(path)


def test_every_cell_of_a_row_is_kept(tmp_path: Path) -> None:
    given = {
        **{"key": "a", "image_id": 2**60 + 1, "image": 'f/\u00e9 "1".jpg', "width": 4, "height": 3, "source": "coco"},
        **{
            "expression": "caf\u00e9\n\\ \U0001f34e",
            "boxes": [[0.1, -1e-9, 1 / 3, 1e300], [0, 0, 4, 3]],
            "split": "val",
        },
        **{"masks": ["\\04;", "l1"], "polygons": [0, 2], "ann_ids": [7, -1], "categories": ["a", ""]},
        **{"ref_id": None, "sent_id": 5, "group": -3},
    }
    none = {**given, "key": "b", "boxes": [], "masks": [], "polygons": [], "ann_ids": [], "categories": []}
    made = AnnotationTable.from_rows([given, none], {})
    made.save(tmp_path / "t.arrow")
    opened = AnnotationTable.open(tmp_path / "t.arrow")
    for row, wanted in zip(opened, made, strict=True):
        assert row.boxes.tolist() == wanted.boxes.tolist() and row.no_target == wanted.no_target
        assert replace(row, boxes=()) == replace(wanted, boxes=())
    assert opened.row(0).expression == given["expression"] and opened.row(1).no_target


def test_tables_of_columns_only_are_read_too(tmp_path: Path) -> None:
    """The form of version 0.1.0 and of other programs."""
    path = tmp_path / "t.arrow"
    plain = large(1000)
    table = plain.arrow.replace_schema_metadata({"vgbench": json.dumps({"hash": plain.hash})})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=64)
    check_rows(AnnotationTable.open(path), list(range(0, 1000, 7)))
    with pa.ipc.new_file(str(path), table.schema.with_metadata({"vgbench": '{"hash": "0"}'})) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match="its values are not those that were written"):
        AnnotationTable.open(path)
    with pa.ipc.new_file(str(path), table.drop(["split"]).schema) as writer:
        writer.write_table(table.drop(["split"]))
    with pytest.raises(UserError, match=r"t\.arrow: not an annotation table"):
        AnnotationTable.open(path)
    nothing = AnnotationTable.from_rows([], {})
    nothing.save(path)
    assert len(AnnotationTable.open(path)) == 0 and list(AnnotationTable.open(path)) == []
    assert AnnotationTable.open(path).column("group").tolist() == []


MEASURE = """
import sys, time
from pathlib import Path
import numpy as np
from vgbench.data.images import decode_image
from vgbench.data.table import AnnotationTable

def memory(kind):  # RssFile: pages of the file itself, which the system may drop and processes share
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind))

before, anonymous = memory("VmRSS"), memory("RssAnon")
started = time.perf_counter()
table = AnnotationTable.open(Path(sys.argv[1]))
table.row(len(table) // 2)
opened, resident = time.perf_counter() - started, memory("VmRSS") - before

def seconds(order, *images):
    started = time.process_time()
    for index in order:
        table.row(index)
        for image in images:
            decode_image(image)
    return time.process_time() - started

image = Path(sys.argv[2])
def smallest(measured):  # of several parts: the machine may do something else meanwhile
    return [min(part) for part in zip(*measured)]

# shuffled rows are far apart, none is read twice; the first seconds of a worker, in which most of the file's pages are
# mapped into it, are left out on both sides
order = np.random.default_rng(0).permutation(len(table))[:260_000].tolist()
seconds(range(100), image)
seconds(order[60_000:])
seconds(range(60_000))
rows = smallest((seconds(range(k, k + 2_000)), seconds(order[k : k + 2_000])) for k in range(0, 50_000, 2_000))
samples = smallest((seconds(range(k, k + 100), image), seconds(order[k : k + 100], image))
                   for k in range(50_000, 51_000, 100))
print(len(table), opened, resident, memory("RssAnon") - anonymous, *rows, *samples)
"""


@pytest.mark.slow
def test_ten_million_expressions(tmp_path: Path) -> None:
    """Memory is what is asserted; ``pytest -n 0 -s -m slow tests/data/test_shards.py`` prints the times."""
    started = time.perf_counter()
    path = tmp_path / "large.arrow"
    large(10_000_000).save(path)
    print(f"written in {time.perf_counter() - started:.1f} s, {path.stat().st_size / 1e9:.2f} GB")
    image = tmp_path / "photograph.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((640, 480)).save(image)
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path), str(image)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows, opened, resident, anonymous, *seconds = map(float, done.stdout.split())
    print(f"opened in {opened:.3f} s, {resident:.0f} MB resident; own memory after reading {anonymous:.0f} MB")
    print(
        "2,000 rows in order {:.4f} s, shuffled {:.4f} s; 100 with image {:.3f} s, shuffled {:.3f} s".format(*seconds)
    )
    assert rows == 10_000_000 and anonymous < 500
