"""Published files that hold several datasets at once: jxu124's benchmark parquet files, TensorFlow Datasets' TFRecord
files and MDETR's merged JSON.

Every fixture is written twice, in the layout under test and in the refer layout, and both must read alike.
"""

import copy
import io
import json
import pickle
import random
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from tensorboard.summary.writer.record_writer import RecordWriter

from vgbench.core.errors import UserError
from vgbench.data.layouts.tfrecord import example_type, parse_example, read_records
from vgbench.datasets.mixed import CocoAll, Mixed, ReferIt
from vgbench.datasets.refcoco import RefCOCO, RefCOCOg, RefCOCOPlus
from vgbench.datasets.vg import evaluation_images

SIZES = {101: (64, 48), 102: (50, 60)}
COCO = {
    11: {"image_id": 101, "bbox": [10.5, 10.0, 30.0, 30.0], "segmentation": [[10.5, 10, 40, 10, 40, 40, 10.5, 40]]},
    12: {"image_id": 101, "bbox": [50.25, 5.5, 13.75, 20.0], "segmentation": [[50, 5, 64, 5, 64, 25]]},
    21: {
        "image_id": 102,
        "bbox": [0.0, 0.0, 40.0, 30.0],
        "segmentation": [[0, 0, 20, 0, 20, 30, 0, 30], [15, 0, 40, 0, 40, 30, 15, 30]],  # they overlap
    },
}
# split, annotation id, sentences; the refs of image 101 do not follow each other
REFS = [
    ("val", 11, ["The MUG, left!", "mug"]),
    ("val", 21, ["Caf\u00e9 sign"]),
    ("val", 12, ["right one"]),
    ("testA", 21, ["stripe"]),
]
STEMS = {
    "refcoco_unc": (RefCOCO, "unc", "refcoco"),
    "refcoco_google": (RefCOCO, "google", "refcoco"),
    "refcoco_plus_unc": (RefCOCOPlus, "unc", "refcoco+"),
    "refcocog_umd": (RefCOCOg, "umd", "refcocog"),
    "refcocog_google": (RefCOCOg, "google", "refcocog"),
    "refclef_berkeley": (ReferIt, "berkeley", "refclef"),
    "refclef_unc": (ReferIt, "unc", "refclef"),
}


def image_info(image_id, stem):
    width, height = SIZES[image_id]
    if stem.startswith("refclef"):
        return {"file_name": f"{image_id}.jpg", "height": height, "id": image_id, "width": width}
    return {
        "coco_url": "",
        "date_captured": "2013-11-14 16:28:13",
        "file_name": f"COCO_train2014_{image_id:012d}.jpg",
        "flickr_url": "",
        "height": height,
        "id": image_id,
        "license": 3,
        "width": width,
    }


def annotations(stem):
    """COCO's annotations; in refclef ids are text and masks are lists of compressed RLEs."""
    common = {ann: {"area": 100.0, "category_id": 1, "id": ann, "iscrowd": 0, **known} for ann, known in COCO.items()}
    if not stem.startswith("refclef"):
        return common
    out = {}
    for ann, record in common.items():
        width, height = SIZES[record["image_id"]]
        rles = coco_mask.frPyObjects(record["segmentation"], height, width)
        segmentation = [{"counts": rle["counts"].decode(), "size": list(rle["size"])} for rle in rles]
        known = {"id": f"{record['image_id']}_{ann}", "area": 100, "mask_name": "x.mat", "segmentation": segmentation}
        out[ann] = {key: value for key, value in {**record, **known}.items() if key != "iscrowd"}
    return out


def refs(stem):
    there = annotations(stem)
    out = []
    for number, (split, ann, sentences) in enumerate(REFS):
        image_id = COCO[ann]["image_id"]
        ref = {
            "ann_id": there[ann]["id"],
            "category_id": 1,
            "file_name": f"COCO_train2014_{image_id:012d}_{number}.jpg",
            "image_id": image_id,
            "ref_id": 7 + number,
            "sent_ids": [100 + 10 * number + i for i in range(len(sentences))],
            "sentences": [
                {"raw": raw, "sent": raw.lower(), "sent_id": 100 + 10 * number + i, "tokens": raw.lower().split()}
                for i, raw in enumerate(sentences)
            ],
            "split": split,
        }
        if stem.startswith("refclef"):
            del ref["file_name"]
        out.append((there[ann], ref))
    return out


def write_refer(root, stem):
    _, split_by, folder = STEMS[stem]
    (root / folder).mkdir(parents=True)
    content = {
        "images": [image_info(image_id, stem) for image_id in SIZES],
        "annotations": list(annotations(stem).values()),
    }
    (root / folder / "instances.json").write_text(json.dumps(content))
    (root / folder / f"refs({split_by}).p").write_bytes(pickle.dumps([ref for _, ref in refs(stem)], protocol=2))
    return root


def benchmark_rows(stem, split):
    rows = []
    for image_id, size in SIZES.items():
        of_image = [
            {"ann_info": ann, "ref_info": ref}
            for ann, ref in refs(stem)
            if ref["image_id"] == image_id and ref["split"] == split
        ]
        if of_image:
            buffer = io.BytesIO()
            Image.new("RGB", size).save(buffer, "PNG")
            image = {"bytes": buffer.getvalue(), "path": None}
            rows.append({"ref_list": of_image, "image_info": image_info(image_id, stem), "image": image})
    return rows


def write_benchmark(root, stem, split="val", rows=None):
    """One file per image, as the large splits of the hub come in several."""
    folder = root / ("refclef-benchmark" if stem.startswith("refclef") else "refcoco-benchmark") / "data"
    folder.mkdir(parents=True, exist_ok=True)
    rows = benchmark_rows(stem, split) if rows is None else rows
    for number, row in enumerate(rows):
        name = f"{stem}_{split}-{number:05d}-of-{len(rows):05d}-23c691a8c4bd006d.parquet"
        pq.write_table(pa.Table.from_pylist([row]), folder / name)
    return root


def open_stem(stem, root, **options):
    kind, split_by, _ = STEMS[stem]
    return kind(root, split_by=split_by, cache_dir=root / "cache", **options)


def content(table):
    columns = ("key", "image_id", "image", "width", "height", "expression", "boxes", "masks", "polygons", "ann_ids")
    columns = (*columns, "ref_id", "sent_id", "source", "split")
    return table.arrow.select(columns).sort_by("key").to_pylist()


@pytest.mark.parametrize("stem", STEMS)
def test_benchmark_files_read_as_the_refer_layout(tmp_path, stem):
    for there in STEMS:  # files of the other sets lie beside them
        rows = benchmark_rows(there, "val")
        write_benchmark(tmp_path / "b", there, rows=rows if there == stem else rows[:1])
    found = open_stem(stem, tmp_path / "b").load("val")
    refer = open_stem(stem, write_refer(tmp_path / "a", stem)).load("val")
    assert found.info["layout"] == "benchmark" and refer.info["layout"] == "refer"
    assert content(found) == content(refer) and len(found) == 4
    assert found.has_masks and [row.sent_id for row in found] == [100, 101, 120, 110]  # by image
    groups = [row.group for row in found]
    assert groups[0] == groups[1] and len(set(groups)) == 3  # one per ref


def test_benchmark_split_without_a_file(tmp_path):
    data = open_stem("refcoco_unc", write_benchmark(tmp_path, "refcoco_unc", "testA"))
    assert [row.expression for row in data.load("testA")] == ["stripe"]
    with pytest.raises(UserError, match=r"no annotations of split 'train' \(found the benchmark layout\)"):
        data.load("train")
    # also where data_root is the downloaded folder itself
    assert len(open_stem("refcoco_unc", tmp_path / "refcoco-benchmark").load("testA")) == 1


@pytest.mark.parametrize(
    ("damage", "message", "lost"),
    [
        (lambda row: row["ref_list"][0]["ann_info"].update(id=99), r"ref_list\[0\]: 'id' that is not the ref's", 2),
        (lambda row: row["ref_list"][1]["ann_info"].update(image_id=7), r"ref_list\[1\]: 'image_id' that is not", 1),
        (lambda row: row["ref_list"][1]["ann_info"].update(bbox=[1.0, 2.0, 0.0, 3.0]), r"ref_list\[1\]: ", 1),
        (lambda row: row["ref_list"][0].update(ref_info=None), r"ref_list\[0\]: wrong type of 'ref_info'", 1),
        (lambda row: row["image_info"].update(file_name="../x.jpg"), r"row 0: .*x\.jpg", 3),
        (lambda row: row["image_info"].update(width=None), r"row 0: 'width' is not an integer", 3),
        (lambda row: row.update(ref_list=None), r"row 0: wrong type of 'ref_list'", 1),
    ],
)
def test_benchmark_rows_that_cannot_be_used(tmp_path, damage, message, lost):
    rows = benchmark_rows("refcoco_unc", "val")
    damage(rows[0])
    write_benchmark(tmp_path, "refcoco_unc", rows=rows)
    with pytest.raises(UserError, match=r"refcoco_unc_val-00000.*" + message) as error:
        open_stem("refcoco_unc", tmp_path).load("val")
    assert "\n" not in str(error.value)
    table = open_stem("refcoco_unc", tmp_path, on_bad_sample="skip").load("val")
    assert sum(table.info["skipped"].values()) == lost and "Caf\u00e9 sign" in [row.expression for row in table]


def test_damaged_benchmark_file(tmp_path):
    write_benchmark(tmp_path, "refcoco_unc")
    (path,) = (tmp_path / "refcoco-benchmark" / "data").glob("*-00000-of-*")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="not a readable parquet file"):
        open_stem("refcoco_unc", tmp_path).load("val")


# built by tensorflow-datasets 4.9.10 from REFS: what its builder of ref_coco wrote
BUILT = Path(__file__).parents[2] / "fixtures" / "ref_coco" / "refcoco_unc" / "1.1.0"
CONFIGS = {
    "refcoco_unc": "refcoco_unc",
    "refcoco_google": "refcoco_google",
    "refcoco_plus_unc": "refcocoplus_unc",
    "refcocog_umd": "refcocog_umd",
    "refcocog_google": "refcocog_google",
}


def varint(number):
    number &= 2**64 - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def chunk(number, content):
    """A protocol-buffer field that holds a message, a text or bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def encode_example(features):
    """tf.train.Example, by hand: {name: list of bytes, floats or integers}."""
    entries = b""
    for name, values in features.items():
        if values and isinstance(values[0], bytes):
            feature = chunk(1, b"".join(chunk(1, value) for value in values))
        elif values and isinstance(values[0], float):
            feature = chunk(2, chunk(1, struct.pack(f"<{len(values)}f", *values)))
        else:
            feature = chunk(3, chunk(1, b"".join(map(varint, values))))
        entries += chunk(1, chunk(1, name.encode()) + chunk(2, feature))
    return chunk(1, entries)


def annotation_features(prefix, there, size):
    """``objects`` or ``coco_annotations``: boxes are normalised ymin, xmin, ymax, xmax."""
    width, height = size
    boxes = [(y / height, x / width, (y + h) / height, (x + w) / width) for x, y, w, h in (a["bbox"] for a in there)]
    return {
        f"{prefix}/area": [int(a["area"]) for a in there],
        f"{prefix}/bbox": [value for box in boxes for value in box],
        f"{prefix}/id": [a["id"] for a in there],
        f"{prefix}/label": [a["category_id"] for a in there],
    }


def picture(kind, image):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def tfds_examples(stem, split, masks=True):
    """One example per image, as the builder's _generate_examples gives them."""
    examples = []
    there = annotations(stem)
    for image_id, (width, height) in SIZES.items():
        of_image = [(ann, ref) for ann, ref in refs(stem) if ref["image_id"] == image_id and ref["split"] == split]
        if not of_image:
            continue
        known = [ann for ann in there.values() if ann["image_id"] == image_id]
        texts = [[sentence["raw"].encode() for sentence in ref["sentences"]] for _, ref in of_image]
        example = {
            "image": [picture("JPEG", Image.new("RGB", (width, height)))],
            "image/id": [image_id],
            **annotation_features("coco_annotations", known, (width, height)),
            **annotation_features("objects", [ann for ann, _ in of_image], (width, height)),
            "objects/gt_box_index": [known.index(ann) for ann, _ in of_image],
            "objects/refexp/raw/ragged_flat_values": [text for part in texts for text in part],
            "objects/refexp/raw/ragged_row_lengths_0": [len(part) for part in texts],
            "objects/refexp/refexp_id/ragged_flat_values": [n for _, ref in of_image for n in ref["sent_ids"]],
            "objects/refexp/refexp_id/ragged_row_lengths_0": [len(part) for part in texts],
        }
        if masks:
            decoded = [
                coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(ann["segmentation"], height, width)))
                for ann, _ in of_image
            ]
            example["objects/mask"] = [picture("PNG", Image.fromarray(mask.astype(bool))) for mask in decoded]
        examples.append(example)
    return examples


def write_tfds(root, stem, split="val", examples=None, version="1.1.0", shards=1):
    folder = root / "ref_coco" / CONFIGS[stem] / version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "features.json").write_text("{}")
    (folder / "dataset_info.json").write_text("{}")
    examples = tfds_examples(stem, split, version != "1.0.0") if examples is None else examples
    for number in range(shards):
        name = f"ref_coco-{'validation' if split == 'val' else split}.tfrecord-{number:05d}-of-{shards:05d}"
        with (folder / name).open("wb") as file:
            writer = RecordWriter(file)
            for example in examples[number::shards]:
                writer.write(example if isinstance(example, bytes) else encode_example(example))
    return root


def tfds_content(table, masks=True):
    columns = ("sent_id", "image_id", "image", "width", "height", "expression", "boxes", "ann_ids", "source", "split")
    columns = (*columns, "masks") if masks else columns
    return table.arrow.select(columns).sort_by("sent_id").to_pylist()


@pytest.mark.parametrize("split", ["val", "testA"])
def test_files_built_by_tensorflow_datasets(tmp_path, split):
    shutil.copytree(BUILT.parents[1], tmp_path / "b" / "ref_coco")
    found = open_stem("refcoco_unc", tmp_path / "b").load(split)
    refer = open_stem("refcoco_unc", write_refer(tmp_path / "a", "refcoco_unc")).load(split)
    assert found.info["layout"] == "tfds" and tfds_content(found) == tfds_content(refer)
    # the writer of these tests makes the same features; the pictures may be compressed otherwise
    write_tfds(tmp_path / "c", "refcoco_unc", split)
    name = f"ref_coco-{'validation' if split == 'val' else split}.tfrecord-00000-of-00001"
    made, built = (
        list(map(parse_example, read_records(path / name)))
        for path in (tmp_path / "c" / "ref_coco" / "refcoco_unc" / "1.1.0", BUILT)
    )
    assert len(made) == len(built) == (2 if split == "val" else 1)
    for ours, theirs in zip(made, built, strict=True):
        assert set(ours) == set(theirs)
        for feature in set(ours) - {"image", "objects/mask"}:
            assert ours[feature] == theirs[feature], feature


@pytest.mark.parametrize("version", ["1.0.0", "1.1.0"])
@pytest.mark.parametrize("stem", CONFIGS)
def test_tfds_files_read_as_the_refer_layout(tmp_path, stem, version):
    for there in CONFIGS:
        write_tfds(tmp_path / "b", there, version=version, shards=2 if there == stem else 1)
    found = open_stem(stem, tmp_path / "b").load("val")
    refer = open_stem(stem, write_refer(tmp_path / "a", stem)).load("val")
    assert found.has_masks == (version == "1.1.0") and len(found) == 4
    assert tfds_content(found, found.has_masks) == tfds_content(refer, found.has_masks)
    groups = {row.sent_id: row.group for row in found}
    assert groups[100] == groups[101] and len(set(groups.values())) == 3
    # also where data_root is the folder of the configuration, and never one of another
    folder = tmp_path / "b" / "ref_coco" / CONFIGS[stem]
    assert len(open_stem(stem, folder, layout="tfds").load("val")) == 4
    other = next(name for name in CONFIGS if name != stem)
    with pytest.raises(UserError, match="none of the expected"):
        open_stem(other, folder, layout="tfds").load("val")


def test_latest_tfds_version_is_taken(tmp_path):
    for version, text in (("1.9.0", b"old"), ("1.10.0", b"new")):
        (example,) = tfds_examples("refcoco_unc", "testA")
        example["objects/refexp/raw/ragged_flat_values"] = [text]
        write_tfds(tmp_path, "refcoco_unc", "testA", [example], version)
    assert [row.expression for row in open_stem("refcoco_unc", tmp_path).load("testA")] == ["new"]
    with pytest.raises(UserError, match=r"no annotations of split 'val' \(found the tfds layout\)"):
        open_stem("refcoco_unc", tmp_path).load("val")


def test_tfds_boxes_have_the_decimals_of_the_annotations(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    monkeypatch.setitem(SIZES, 101, (640, 427))
    for _ in range(20):
        x, y = generator.integers(0, [40000, 30000]) / 100
        w, h = generator.integers(2000, [20000, 10000]) / 100
        monkeypatch.setitem(COCO[11], "bbox", [float(x), float(y), float(w), float(h)])
        examples = tfds_examples("refcoco_unc", "val", masks=False)
        root = write_tfds(tmp_path, "refcoco_unc", examples=examples, version="1.0.0")
        assert open_stem("refcoco_unc", root).read("val").row(0).boxes.tolist() == [[x, y, x + w, y + h]]


RAW = "objects/refexp/raw/ragged_flat_values"


@pytest.mark.parametrize(
    ("damage", "message", "lost"),
    [
        (lambda e: e.pop("objects/bbox"), "no feature 'objects/bbox'", 3),
        (lambda e: e["objects/bbox"].pop(), "wrong number of values of 'objects/bbox' .7 instead of 8", 3),
        (lambda e: e.update({"objects/bbox": [1, 2, 3, 4] * 2}), "wrong type of 'objects/bbox'", 3),
        (lambda e: e["objects/bbox"].__setitem__(0, float("nan")), r"objects\[0\]: .*not a finite number", 2),
        (lambda e: e["objects/bbox"].__setitem__(7, 0.5), r"objects\[1\]: box without area", 1),
        (lambda e: e.update({"objects/refexp/raw/ragged_row_lengths_0": [2, 2]}), "row lengths that do not fit", 3),
        (lambda e: e.update({"objects/refexp/raw/ragged_row_lengths_0": [4, -1]}), "row lengths that do not fit", 3),
        (lambda e: e.update({"objects/refexp/refexp_id/ragged_row_lengths_0": [1, 2]}), "row lengths of .* differ", 3),
        (lambda e: e[RAW].__setitem__(2, "Café".encode("latin-1")), r"objects\[1\]: .*not valid Unicode", 1),
        (lambda e: e[RAW].__setitem__(2, b" "), r"objects\[1\]: expression without text", 1),
        (lambda e: e["objects/mask"].__setitem__(0, picture("PNG", Image.new("1", (9, 9)))), "mask of another size", 3),
        (lambda e: e["objects/mask"].__setitem__(0, b"PNG"), "embedded image that is no image", 3),
        (
            lambda e: e["objects/mask"].__setitem__(0, picture("PNG", Image.new("RGB", (64, 48)))),
            r"mask that is no \[height, width\] image",
            3,
        ),
        (lambda e: e.update(image=[b"JPEG"]), "embedded image that is no image", 3),
        (lambda e: e.update(image=[]), "wrong number of values of 'image'", 3),
    ],
)
def test_tfds_records_that_cannot_be_used(tmp_path, damage, message, lost):
    examples = tfds_examples("refcoco_unc", "val")
    damage(examples[0])
    write_tfds(tmp_path, "refcoco_unc", examples=examples)
    with pytest.raises(UserError, match=r"tfrecord-00000-of-00001: record 0.*" + message) as error:
        open_stem("refcoco_unc", tmp_path).load("val")
    assert "\n" not in str(error.value)
    table = open_stem("refcoco_unc", tmp_path, on_bad_sample="skip").load("val")
    assert sum(table.info["skipped"].values()) == lost and "Caf\u00e9 sign" in [row.expression for row in table]


def test_damaged_tfds_files(tmp_path):
    write_tfds(tmp_path, "refcoco_unc", shards=2)
    first, second = sorted((tmp_path / "ref_coco" / "refcoco_unc" / "1.1.0").glob("*.tfrecord*"))
    whole = first.read_bytes()
    for content in (whole[:-1], whole[:7], b"\xff" * 40, whole[:3] + b"\x01" + whole[4:], whole + b"0123456789"):
        first.write_bytes(content)
        with pytest.raises(UserError, match=r"00000-of-00002: not a TFRecord file, damaged or truncated"):
            open_stem("refcoco_unc", tmp_path).load("val")
    first.write_bytes(whole)
    second.unlink()
    with pytest.raises(UserError, match=r"1\.1\.0: 1 of 2 files of val are there"):
        open_stem("refcoco_unc", tmp_path).load("val")
    write_tfds(tmp_path / "b", "refcoco_unc", examples=[b"no message"])
    with pytest.raises(UserError, match=r"record 0: record that is no tf\.train\.Example"):
        open_stem("refcoco_unc", tmp_path / "b").load("val")


def test_tfds_files_without_protobuf(tmp_path, monkeypatch):
    write_tfds(tmp_path, "refcoco_unc")
    monkeypatch.setitem(sys.modules, "google.protobuf.descriptor_pb2", None)
    example_type.cache_clear()
    with pytest.raises(UserError, match=r'pip install "vgbench\[tfds\]"'):
        open_stem("refcoco_unc", tmp_path).load("val")


REFEXP = {"refcoco": "refcoco_unc", "refcoco+": "refcoco_plus_unc", "refcocog": "refcocog_umd"}


def refexp_content(names=tuple(REFEXP), split="val"):
    """One image entry per sentence; images and annotations are counted through all datasets."""
    content = {"info": {}, "licenses": [], "images": [], "annotations": [], "categories": [{"id": 1, "name": "cup"}]}
    for name in names:
        for annotation, ref in refs(REFEXP[name]):
            for sentence in ref["sentences"] if ref["split"] == split else []:
                number = len(content["images"])
                info = image_info(ref["image_id"], name)
                image = {key: info[key] for key in ("file_name", "height", "width")}
                image.update(id=number, original_id=ref["image_id"], caption=sentence["sent"], dataset_name=name)
                content["images"].append({**image, "tokens_negative": []})
                known = {key: annotation[key] for key in ("area", "iscrowd", "category_id", "bbox")}
                known.update(image_id=number, id=number, original_id=annotation["id"])
                content["annotations"].append({**known, "tokens_positive": [[0, 3]]})
    return content


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize("name", REFEXP)
def test_refexp_val_holds_three_datasets(tmp_path, name):
    stem = REFEXP[name]
    write_json(tmp_path / "b" / "mdetr_annotations" / "final_refexp_val.json", refexp_content())
    found = open_stem(stem, tmp_path / "b").load("val")
    refer = open_stem(stem, write_refer(tmp_path / "a", stem)).load("val")
    assert found.info["layout"] == "mdetr"
    for row, known in zip(found, refer, strict=True):
        assert row.expression == known.expression.lower()  # the file has sent, not raw
        assert (row.image_id, row.image, row.ann_ids) == (known.image_id, known.image, known.ann_ids)
        assert row.boxes.tolist() == known.boxes.tolist()
    assert [row.group for row in found] == [row.group for row in refer]
    write_json(tmp_path / "c" / f"finetune_{name}_val.json", refexp_content([name]))
    alone = open_stem(stem, tmp_path / "c").load("val")
    assert content(found) == content(alone)  # keys too: predictions go with either file


def test_refexp_val_beside_the_files_of_one_dataset(tmp_path):
    write_json(tmp_path / "final_refexp_val.json", refexp_content(["refcoco+"]))
    write_json(tmp_path / "finetune_refcoco_testA.json", refexp_content(["refcoco"], "testA"))
    data = open_stem("refcoco_unc", tmp_path)
    assert [row.expression for row in data.load("testA")] == ["stripe"]
    with pytest.raises(UserError, match=r"val\.json: no entry of dataset_name 'refcoco'; there are: refcoco\+"):
        data.load("val")
    write_json(tmp_path / "finetune_refcoco_val.json", refexp_content(["refcoco"]))
    assert data.sources("val") and len(open_stem("refcoco_unc", tmp_path).load("val")) == 4
    with pytest.raises(UserError, match="none of the expected annotation files"):
        open_stem("refcoco_google", tmp_path).load("val")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content["images"][1].pop("dataset_name"), r"images\[1\]: no key 'dataset_name'"),
        (lambda content: content["annotations"][1].update(bbox=[1, 2]), r"images\[1\]: "),
        (lambda content: content["annotations"].pop(1), r"images\[1\]: not exactly one target"),
    ],
)
def test_refexp_entries_that_cannot_be_used(tmp_path, damage, message):
    content_of_file = refexp_content()
    damage(content_of_file)
    write_json(tmp_path / "final_refexp_val.json", content_of_file)
    with pytest.raises(UserError, match=r"final_refexp_val\.json: " + message):
        open_stem("refcoco_unc", tmp_path).load("val")
    assert len(open_stem("refcoco_unc", tmp_path, on_bad_sample="skip").load("val")) == 3


def mixed_content(coco=True):
    """A COCO image, one of RefCOCO's evaluation images, an image of Visual Genome; ids of images are text."""
    leaked = min(evaluation_images())
    entries = [(101, "coco", "the mug. two cups near it.", [([[0, 7]], [1, 2, 10, 10]), ([[9, 17]], [5, 5, 10, 10])])]
    entries[0][3].append(([[9, 17]], [30, 8, 10, 12]))
    entries.append((leaked, "coco", "a dog.", [([[0, 5]], [1, 2, 10, 10])]))
    entries.append((2401, "vg", "white hat on the man.", [([[0, 5], [13, 20]], [0, 0, 20, 20])]))
    content = {"info": [], "licenses": [], "images": [], "annotations": [], "categories": []}
    for image_id, source, caption, boxes in entries:
        if source == "coco" and not coco:
            continue
        number = len(content["images"])
        name = f"COCO_train2014_{image_id:012d}.jpg" if source == "coco" else f"{image_id}.jpg"
        image = {"file_name": name, "height": 48, "width": 64, "id": number, "original_id": str(image_id)}
        image.update(caption=caption, tokens_negative=[[0, 3]], data_source=source, dataset_name="mixed")
        content["images"].append(image)
        for spans, box in boxes:
            known = {"area": 100.0, "iscrowd": 0, "image_id": number, "category_id": 1, "bbox": box}
            content["annotations"].append({**known, "id": len(content["annotations"]), "tokens_positive": spans})
    return content


def test_mdetr_mixed_set(tmp_path, caplog):
    write_json(tmp_path / "mdetr_annotations" / "final_mixed_train.json", mixed_content())
    data = Mixed(tmp_path, cache_dir=tmp_path / "cache")
    table = data.load("train")
    assert [(row.image, row.image_id, row.source, row.expression, row.boxes.tolist()) for row in table] == [
        ("mscoco/train2014/COCO_train2014_000000000101.jpg", 101, "coco", "the mug", [[1, 2, 11, 12]]),
        ("mscoco/train2014/COCO_train2014_000000000101.jpg", 101, "coco", "two cups", [[5, 5, 40, 20]]),
        ("visual-genome/2401.jpg", 2401, "vg", "white the man", [[0, 0, 20, 20]]),
    ]
    assert table.info["layout"] == "mdetr" and "MDETR's mixed set" in caplog.text
    assert table.info["entries"] == {"kept": {"coco": 1, "vg": 1}, "of another source": {}, "excluded": {"coco": 1}}
    assert len(Mixed(tmp_path, cache_dir=tmp_path / "cache", exclude_eval_images=False).load("train")) == 4
    with pytest.raises(UserError, match=r"no annotations of split 'val_flickr30k' \(found the mdetr layout\)"):
        data.load("val_flickr30k")
    with pytest.raises(UserError, match="none of the expected annotation files"):  # that is a part of SeqTR's
        CocoAll(tmp_path, cache_dir=tmp_path / "cache").load("train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens_positive": []}, "expression without text"),  # the authors' cleaning of spans can end so
        ({"bbox": [70, 50, 3, 3]}, "box"),
    ],
)
def test_one_phrase_that_cannot_be_used_costs_no_other(tmp_path, change, message):
    content_of_file = mixed_content()
    content_of_file["annotations"][0].update(change)
    write_json(tmp_path / "final_mixed_train.json", content_of_file)
    with pytest.raises(UserError, match=rf"images\[0\], phrase 0: .*{message}"):
        Mixed(tmp_path, cache_dir=tmp_path / "cache").load("train")
    table = Mixed(tmp_path, cache_dir=tmp_path / "cache", on_bad_sample="skip").load("train")
    assert [row.expression for row in table] == ["two cups", "white the man"]
    assert list(table.info["skipped"].values()) == [1]


def test_mdetr_mixed_set_without_coco(tmp_path):
    write_json(tmp_path / "final_mixed_train_no_coco.json", mixed_content(coco=False))
    (tmp_path / "images" / "gqa" / "images").mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(tmp_path / "images" / "gqa" / "images" / "2401.jpg")
    data = Mixed(tmp_path, cache_dir=tmp_path / "cache")
    (row,) = data.load("train")
    assert row.source == "vg" and data.image_path(row.image).is_file()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data_source", "gqa", r"images\[0\]: unknown data_source .*'gqa'; known: coco, vg"),
        ("file_name", "../../x_1.jpg", r"images\[0\]: .*x_1\.jpg"),
        ("caption", "", r"images\[0\]: expression without text"),
    ],
)
def test_mdetr_mixed_entries_that_cannot_be_used(tmp_path, key, value, message):
    content_of_file = mixed_content()
    content_of_file["images"][0][key] = value
    write_json(tmp_path / "final_mixed_train.json", content_of_file)
    with pytest.raises(UserError, match=r"final_mixed_train\.json: " + message):
        Mixed(tmp_path, cache_dir=tmp_path / "cache").load("train")
    assert len(Mixed(tmp_path, cache_dir=tmp_path / "cache", on_bad_sample="skip").load("train")) == 1


ODD = [None, True, -1, 0, 2**70, float("nan"), float("inf"), "", "x", "../../a.jpg", "\u0000", [], [[]], {}, {"a": 1}]


def mutate(value, rng):
    """``value`` with one random part replaced or removed."""
    parts = [value]
    while isinstance(parts[-1], (dict, list)) and parts[-1] and rng.random() < 0.9:
        keys = list(parts[-1]) if isinstance(parts[-1], dict) else range(len(parts[-1]))
        key = rng.choice(list(keys))
        holder = parts[-1]
        parts.append(holder[key])
    if len(parts) > 1:
        if rng.random() < 0.2:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(rng.choice(ODD))
    return value


def reads_or_says_why(data, split):
    try:
        data.load(split)
    except UserError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize("kind", ["benchmark", "refclef", "tfds", "refexp", "mixed"])
def test_fuzzed_files_never_give_a_traceback(tmp_path, kind):
    rng = random.Random(kind)
    for number in range(40):
        root = tmp_path / str(number)
        if kind in ("benchmark", "refclef"):
            stem = "refcoco_unc" if kind == "benchmark" else "refclef_unc"
            try:
                write_benchmark(root, stem, rows=[mutate(row, rng) for row in benchmark_rows(stem, "val")])
            except (pa.ArrowException, OverflowError, TypeError, ValueError):
                continue  # no parquet file holds that
            reads_or_says_why(open_stem(stem, root, on_bad_sample="skip"), "val")
        elif kind == "tfds":
            try:
                examples = [mutate(example, rng) for example in tfds_examples("refcoco_unc", "val")]
                write_tfds(root, "refcoco_unc", examples=examples)
            except (AttributeError, TypeError, struct.error):
                continue  # no Example holds that
            reads_or_says_why(open_stem("refcoco_unc", root, on_bad_sample="skip"), "val")
        elif kind == "refexp":
            write_json(root / "final_refexp_val.json", mutate(refexp_content(), rng))
            reads_or_says_why(open_stem("refcoco_unc", root, on_bad_sample="skip"), "val")
        else:
            write_json(root / "final_mixed_train.json", mutate(mixed_content(), rng))
            reads_or_says_why(Mixed(root, cache_dir=root / "cache", on_bad_sample="skip"), "train")
