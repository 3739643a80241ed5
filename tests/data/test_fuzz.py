"""Every loader against damaged and hostile files: one line that names the file, or a counted skip"""

import copy
import json
import pickle
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from vgbench.core.errors import UserError
from vgbench.data.additional import AdditionalData
from vgbench.data.checks import read_json
from vgbench.data.dataset import GroundingData
from vgbench.data.table import AnnotationTable
from vgbench.datasets.amc_vg import AMCVisualGenome
from vgbench.datasets.arpgrounding import ARPGrounding
from vgbench.datasets.mixed import Flickr30k
from vgbench.datasets.refadv import RefAdv
from vgbench.datasets.refcoco import RefCOCO
from vgbench.datasets.refcocom import RefCOCOM
from vgbench.datasets.refl4 import RefL4
from vgbench.datasets.vg import VisualGenome

NAME = "COCO_train2014_000000000101.jpg"
Mutate = Callable[[Any, random.Random, Sequence[Any]], Any]
JUNK: list[Any] = [
    *(None, -1, 0, 1e308, float("nan"), float("inf"), True, "", "x", "\ud800", [], [[]], [None], {}, {"size": 3}),
    *(2**70, "../../etc/passwd", "/etc/passwd", "a\0b", [1, 2, 3, 4], [5, 5, 1, 1], "9" * 30),
]


def dump(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def region(number: int) -> dict[str, Any]:
    return {"region_id": number, "x": 1, "y": 2, "width": 20, "height": 10, "phrase": "the clock", "image_id": 101}


REGIONS = [{"id": 101, "regions": [region(1), region(2)]}]
IMAGE_DATA = [{"image_id": 101, "coco_id": 5, "width": 64, "height": 48}]
SENTENCES = {
    "101": [{"sentence": "a dog", "phrases": [{"phrase": "a dog", "phrase_id": "7", "phrase_type": ["animals"]}]}]
}
BOXES = {"101": {"boxes": {"7": [[1, 2, 9, 9], [3, 3, 12, 12]]}, "width": 64, "height": 48}}
QWEN = {"image": f"x/{NAME}", "sent": "mug", "bbox": [1, 2, 11, 12], "width": 64, "height": 48}
TRANSVG: list[Any] = [(NAME, "1.pth", [1, 2, 10, 10], "mug", []), (NAME, "1.pth", [1, 2, 10, 10], "cup", [])]
LISTS = [{"image": "VG_100K/101.jpg", "caption": ["a", "b"], "bbox": [[1, 2, 9, 9]]}]
PACKED = coco_mask.encode(np.asfortranarray(np.ones((48, 64), np.uint8)))
MASK = {"counts": PACKED["counts"].decode(), "size": [48, 64]}
SAMPLES = [{"id": 1, "category": "cup", "sentences": ["mug"], "bbox": [1.0, 2.0, 9.0, 9.0], "mask": MASK}]
REVIEW = {
    "images": [{"id": 1, "file_name": NAME, "caption": "mug"}],
    "annotations": [{"id": 1, "image_id": 1, "bbox": [1, 2, 10, 10], "caption_quality": 0}],
}
ADVERSARIAL = {
    "most_confused_bbox_GT_desc": "mug",
    "most_confused_bbox_number": "1",
    "bbox_candidates_map": '{"1": [1, 2, 10, 10]}',
    "img_file_name": NAME,
}
REGION = {"phrase": "mug", "x": 1, "y": 2, "w": 10, "h": 10}
FILTER = {"name": "mine", "by": "sent_id", "exclude": {"val": [1]}}

Case = tuple[type[GroundingData], str, dict[str, Any], Callable[[Path, Any], None], Any]


def write_json(name: str, **others: Any) -> Callable[[Path, Any], None]:
    def write(root: Path, value: Any) -> None:
        for other, content in others.items():
            dump(root / f"{other}.json", content)
        dump(root / name, value)

    return write


def put_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48)).save(path)


def write_transvg(root: Path, value: Any) -> None:
    (root / "unc").mkdir(exist_ok=True)
    torch.save(value, root / "unc" / "unc_val.pth")
    put_image(root / "images" / "train2014" / NAME)


def write_adversarial(root: Path, value: Any) -> None:
    dump(root / "refcocog_adv_annotations.json", value)
    put_image(root / "images" / "train2014" / NAME)


def write_pairs(root: Path, value: Any) -> None:
    (root / "priority_vg.pkl").write_bytes(pickle.dumps(value))
    put_image(root / "images" / "vg" / "101.jpg")


def write_lines(root: Path, value: Any) -> None:
    (root / "refcoco_val.jsonl").write_text(json.dumps(value) + "\n")


def write_refcoco(root: Path) -> None:
    images = [{"id": 101, "file_name": NAME, "width": 64, "height": 48}]
    annotations = [{"id": 1, "image_id": 101, "bbox": [1, 2, 10, 10], "category_id": 1}]
    dump(root / "refcoco" / "instances.json", {"images": images, "annotations": annotations, "categories": []})
    ref = {"ref_id": 1, "ann_id": 1, "image_id": 101, "split": "val", "sentences": [{"sent_id": 1, "raw": "mug"}]}
    dump(root / "refcoco" / "refs(unc).json", [ref])


def write_review(root: Path, value: Any) -> None:
    write_refcoco(root)
    dump(root / "refcocos_annotation_reviewed" / "refcoco_val_reviewed.json", value)


def write_filter(root: Path, value: Any) -> None:
    write_refcoco(root)
    dump(root / "filter.json", value)


CASES: dict[str, Case] = {
    "vg": (VisualGenome, "train", {}, write_json("region_descriptions.json", image_data=IMAGE_DATA), REGIONS),
    "vg images": (VisualGenome, "train", {}, write_json("image_data.json", region_descriptions=REGIONS), IMAGE_DATA),
    "amc": (AMCVisualGenome, "train", {}, write_json("vg_descriptions.json", image_data=IMAGE_DATA), LISTS),
    "amc images": (AMCVisualGenome, "train", {}, write_json("image_data.json", vg_descriptions=LISTS), IMAGE_DATA),
    "sentences": (Flickr30k, "val", {}, write_json("sentences_val.json", bounding_boxes_val=BOXES), SENTENCES),
    "boxes": (Flickr30k, "val", {}, write_json("bounding_boxes_val.json", sentences_val=SENTENCES), BOXES),
    "separate": (
        *(Flickr30k, "val", {"boxes": "separate"}),
        *(write_json("bounding_boxes_val.json", sentences_val=SENTENCES), BOXES),
    ),
    "qwen": (RefCOCO, "val", {}, write_lines, QWEN),
    "transvg": (RefCOCO, "val", {}, write_transvg, TRANSVG),
    "ref-adv": (RefAdv, "test", {}, write_adversarial, {"a": ADVERSARIAL, "b": ADVERSARIAL}),
    "arpgrounding": (ARPGrounding, "priority", {}, write_pairs, {101: [[REGION, REGION], [REGION, REGION]]}),
    "review": (RefCOCO, "val", {"filter": "ref-l4"}, write_review, REVIEW),
    "filter": (RefCOCO, "val", {"filter": "filter.json"}, write_filter, FILTER),
}


def tuples_as_lists(value: Any) -> Any:
    return [list(item) if isinstance(item, tuple) else item for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("kind", CASES)
def test_fuzzed_values(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, mutate: Mutate) -> None:
    dataset, split, options, write, value = CASES[kind]
    monkeypatch.chdir(tmp_path)  # where the list of a filter lies
    generator = random.Random(kind)
    write(tmp_path, value)
    data = dataset(tmp_path, cache_dir=tmp_path / "cache", on_bad_sample="skip", **options)
    assert len(data.read(split)) and not data.read(split).info["skipped"]  # whole before it is damaged
    outcomes = set()
    for _ in range(60):
        write(tmp_path, mutate(tuples_as_lists(copy.deepcopy(value)), generator, JUNK))
        try:
            data = dataset(tmp_path, cache_dir=tmp_path / "cache", on_bad_sample="skip", **options)
            table = data.load(split) if "filter" in options else data.read(split)
            outcomes.add("skipped" if table.info["skipped"] else "read")
            for row in table:
                for mask in row.masks:
                    coco_mask.decode(mask)
                assert ".." not in row.image and not row.image.startswith("/")
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 1500
            outcomes.add("refused")
    assert len(outcomes) >= 2


XML = (
    "<annotation><size><width>64</width><height>48</height></size><object><name>7</name><bndbox><xmin>2</xmin>"
    "<ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
)
BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "]><annotation>&i;</annotation>"
)


def write_entities(root: Path, xml: bytes, sentence: bytes = b"[/EN#7/animals A dog] runs .\n") -> Path:
    folder = root / "flickr30k_entities"
    for name in ("Sentences", "Annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "val.txt").write_text("101\n")
    (folder / "Sentences" / "101.txt").write_bytes(sentence)
    (folder / "Annotations" / "101.xml").write_bytes(xml)
    return folder


def test_fuzzed_xml(tmp_path: Path) -> None:
    generator = random.Random(0)
    outcomes = set()
    for _ in range(80):
        damaged = bytearray(XML.encode())
        if generator.random() < 0.3:
            del damaged[generator.randrange(len(damaged)) :]
        else:
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        write_entities(tmp_path, bytes(damaged))
        try:
            outcomes.add("skipped" if Flickr30k(tmp_path).read("val").info["skipped"] else "read")
        except UserError as error:
            assert "\n" not in str(error) and "101.xml" in str(error)
            outcomes.add("refused")
    assert outcomes >= {"skipped", "refused"}


def test_entities_that_grow_and_numbers_that_climb(tmp_path: Path) -> None:
    folder = write_entities(tmp_path, BOMB.encode())
    with pytest.raises(UserError, match="document type"):
        Flickr30k(tmp_path, cache_dir=tmp_path).load("val")
    write_entities(tmp_path, XML.encode(), "[/EN#7/animals Ein Hündchen] .".encode("latin-1"))
    with pytest.raises(UserError, match=r"101\.txt: not a readable UTF-8 text"):
        Flickr30k(tmp_path, cache_dir=tmp_path).load("val")
    (folder / "val.txt").write_text("../../101\n")
    with pytest.raises(UserError, match="image that is no number"):
        Flickr30k(tmp_path, cache_dir=tmp_path).load("val")


@pytest.mark.parametrize("kind", ["refcoco-m", "ref-l4"])
def test_fuzzed_parquet(tmp_path: Path, kind: str, mutate: Mutate) -> None:
    row: dict[str, Any] = {"image_id": 101, "samples": SAMPLES}
    target, dataset = tmp_path / "validation-0.parquet", RefCOCOM
    if kind == "ref-l4":
        row = {
            "id": 1,
            "caption": "mug",
            "bbox": [1.0, 2.0, 9.0, 9.0],
            "bbox_id": "o365_1",
            "ori_category_id": "o365_6",
        }
        row |= {"image_id": "o365_9", "height": 48, "width": 64, "file_name": "9.jpg", "split": "val"}
        target, dataset = tmp_path / "ref-l4-val.parquet", RefL4  # type: ignore[assignment]
    pq.write_table(pa.Table.from_pylist([row]), target)
    assert len(dataset(tmp_path).read("val")) == 1
    whole = target.read_bytes()
    generator = random.Random(kind)
    outcomes = set()
    for index in range(60):
        if index % 2:
            damaged = bytearray(whole)
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
            target.write_bytes(damaged)
        else:
            try:
                pq.write_table(pa.Table.from_pylist([mutate(copy.deepcopy(row), generator, JUNK)]), target)
            except (pa.ArrowException, AttributeError, OverflowError, UnicodeEncodeError, TypeError):
                continue  # parquet itself cannot hold it
        try:
            outcomes.add("skipped" if dataset(tmp_path).read("val").info["skipped"] else "read")
        except UserError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
    assert len(outcomes) == 3


@pytest.mark.parametrize("part", ["anywhere", "content"])
def test_fuzzed_records(tmp_path: Path, part: str) -> None:
    """TFRecord files as TensorFlow Datasets built them, with other bytes in them."""
    place = Path("ref_coco", "refcoco_unc", "1.1.0", "ref_coco-validation.tfrecord-00000-of-00001")
    whole = (Path(__file__).parents[1] / "fixtures" / place).read_bytes()
    target = tmp_path / place
    target.parent.mkdir(parents=True)
    target.write_bytes(whole)
    assert len(RefCOCO(tmp_path).read("val")) == 4
    generator = random.Random(part)
    outcomes = set()
    for _ in range(150):
        damaged = bytearray(whole)
        if part == "anywhere" and generator.random() < 0.3:
            del damaged[generator.randrange(len(damaged)) :]
        else:
            for _ in range(generator.randrange(1, 4)):
                length = int.from_bytes(whole[:8], "little")  # of the first record's content
                at = generator.randrange(12, 12 + length) if part == "content" else generator.randrange(len(damaged))
                damaged[at] = generator.randrange(256)
        target.write_bytes(damaged)
        try:
            table = RefCOCO(tmp_path).read("val")
            outcomes.add("skipped" if table.info["skipped"] else "read")
            for row in table:
                for mask in row.masks:
                    coco_mask.decode(mask)
        except UserError as error:
            assert "\n" not in str(error) and place.name in str(error)
            outcomes.add("refused")
    assert outcomes == ({"read", "skipped"} if part == "content" else {"read", "skipped", "refused"})


def test_values_that_contain_themselves(tmp_path: Path) -> None:
    """A pickle of few bytes may stand for a list of 2^60 elements: no message may write it out."""
    grown: list[Any] = [1]
    for _ in range(60):
        grown = [grown, grown]
    entry = {"image_id": 101, "bbox": grown, "phrase": "mug", "ref_id": 3}
    (tmp_path / "images" / "train2014").mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(tmp_path / "images" / "train2014" / NAME)
    (tmp_path / "refcoco(unc).pkl").write_bytes(pickle.dumps({"items": {"val": [entry]}}))
    with pytest.raises(UserError, match="containers within containers without end") as error:
        RefCOCO(tmp_path, cache_dir=tmp_path).load("val")
    assert len(str(error.value)) < 600


def test_numbers_without_end(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": ' + "9" * 100_000 + "}")
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(tmp_path / "x.json")


def test_damaged_tables_are_built_again(tmp_path: Path) -> None:
    """Whatever bytes are wrong: opening says that it is no table, or it is the table; never anything else."""
    path = tmp_path / "table.arrow"
    refs = tmp_path / "set"
    write_refcoco(refs)
    table = RefCOCO(refs, cache_dir=tmp_path).load("val")
    table.save(path)
    whole, rng = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] = rng.randrange(256)
        path.unlink()  # the earlier content is still mapped
        path.write_bytes(damaged)
        try:
            opened = AnnotationTable.open(path)
            assert opened.arrow.equals(table.arrow) and opened.info == table.info  # it was a byte between the values
            assert [row.boxes.tolist() for row in opened] == [row.boxes.tolist() for row in table]
        except UserError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 150


def test_tables_of_others_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"ARROW1", b"\0" * 1000):
        (tmp_path / "annotations.arrow").write_bytes(content)
        with pytest.raises(UserError, match="not an annotation table"):
            AdditionalData.open(tmp_path)
    with pa.ipc.new_file(str(tmp_path / "annotations.arrow"), pa.schema([("a", pa.int64())])):
        pass
    with pytest.raises(UserError, match=r"annotations\.arrow: not an annotation table"):
        AdditionalData.open(tmp_path)
