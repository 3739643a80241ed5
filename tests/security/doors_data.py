"""Doors for data: annotations in every layout, images, archives, tar files of images, cached tables."""

from __future__ import annotations

import functools
import io
import json
import pickle
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from tests.data import samples
from tests.security.harness import Door
from tests.security.mutation import bytes_damage, replaced
from vgbench.data.additional import AdditionalData
from vgbench.data.archives import unpack
from vgbench.data.convert import convert
from vgbench.data.dataset import GroundingData
from vgbench.data.images import decode_image
from vgbench.data.shards import Shards
from vgbench.data.table import AnnotationTable
from vgbench.datasets.amc_vg import AMCVisualGenome
from vgbench.datasets.arpgrounding import ARPGrounding
from vgbench.datasets.finecops import FineCopsRef
from vgbench.datasets.grefcoco import GRefCOCO
from vgbench.datasets.mixed import Flickr30k
from vgbench.datasets.openref import OpenRef
from vgbench.datasets.refadv import RefAdv
from vgbench.datasets.refadv_s import RefAdvS
from vgbench.datasets.refcoco import RefCOCO, RefCOCOPlus
from vgbench.datasets.refcocom import RefCOCOM
from vgbench.datasets.refl4 import RefL4
from vgbench.datasets.vg import VisualGenome

FIXTURES = Path(__file__).parents[1] / "fixtures"
RECORDS = "ref_coco/refcoco_unc/1.1.0/ref_coco-validation.tfrecord-00000-of-00001"


def rle(box: list[int], height: int = 48, width: int = 64) -> str:
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[box[1] : box[3], box[0] : box[2]] = 1
    return coco_mask.encode(mask)["counts"].decode()


def name_of(number: int) -> str:
    return f"COCO_train2014_{number:012d}.jpg"


@functools.cache
def table() -> AnnotationTable:
    """Five expressions with masks on three images."""
    rows = []
    for number in range(5):
        box, image = [1 + number, 2, 30 + number, 20], 101 + number // 2
        rows.append(
            {
                **{"key": str(number), "image_id": image, "image": name_of(image), "width": 64, "height": 48},
                **{"expression": f"the cup number {number}", "boxes": [box], "masks": [rle(box)], "polygons": [0]},
                **{"ann_ids": [number + 1], "categories": ["cup"], "ref_id": number + 1, "sent_id": number + 1},
                **{"group": number + 1, "source": "coco", "split": "val"},
            }
        )
    info = {"dataset": "refcoco", "split": "val", "task": "res", "sources": {}, "volatile": False, "skipped": {}}
    return AnnotationTable.from_rows(rows, {**info, "image_root": None})


def put_images(folder: Path, numbers: tuple[int, ...] = (101, 102, 103)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.new("RGB", (64, 48), (number, 60, 90)).save(folder / name_of(number))


def rows_of(dataset: type[GroundingData], split: str, **options: Any) -> Callable[[Path], list[Any]]:
    """Reads a split by the dataset's own class; every mask is decoded, every name looked at."""

    def use(folder: Path) -> list[Any]:
        place = {name: folder / value for name, value in options.items() if name == "filter"}
        data = dataset(folder, cache_dir=folder / "cache", on_bad_sample="skip", **{**options, **place})
        rows = data.load(split)
        for row in rows:
            for mask in row.masks:
                coco_mask.decode(mask)
            assert ".." not in Path(row.image).parts and not row.image.startswith("/")
            data.find_image(row.image)
        return samples.content(rows)

    return use


def written(layout: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        convert({"val": table()}, layout, folder, "refcoco")
        put_images(folder / "images" / "train2014")

    return write


def json_files(**files: Any) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        for name, value in files.items():
            samples.dump(folder / f"{name}.json", value)

    return write


def one_json(name: str, value: Any) -> Callable[[Path], object]:
    return lambda folder: samples.dump(folder / f"{name}.json", value)


def write_lines(folder: Path) -> None:
    entry = {"image": f"x/{name_of(101)}", "sent": "mug", "bbox": [1, 2, 11, 12], "width": 64, "height": 48}
    (folder / "refcoco_val.jsonl").write_text(f"{json.dumps(entry)}\n{json.dumps(entry | {'sent': 'cup'})}\n")


def write_adversarial(folder: Path) -> None:
    entry = {"most_confused_bbox_GT_desc": "mug", "most_confused_bbox_number": "1", "img_file_name": name_of(101)}
    entry["bbox_candidates_map"] = '{"1": [1, 2, 10, 10]}'
    samples.dump(folder / "refcocog_adv_annotations.json", {"a": entry, "b": entry})
    put_images(folder / "images" / "train2014", (101,))


def write_pickle(name: str, value: Any) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        (folder / name).write_bytes(pickle.dumps(value, protocol=2))
        place = folder / "images" / "vg" / "101.jpg"
        place.parent.mkdir(parents=True)
        Image.new("RGB", (64, 48)).save(place)

    return write


def write_entities(folder: Path) -> None:
    place = folder / "flickr30k_entities"
    for name in ("Sentences", "Annotations"):
        (place / name).mkdir(parents=True)
    (place / "val.txt").write_text("101\n")
    (place / "Sentences" / "101.txt").write_text("[/EN#7/animals A dog] runs .\n")
    size = "<size><width>64</width><height>48</height></size>"
    box = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    xml = f"<annotation>{size}<object><name>7</name>{box}</object></annotation>"
    (place / "Annotations" / "101.xml").write_text(xml)


def write_records(folder: Path) -> None:
    (folder / RECORDS).parent.mkdir(parents=True)
    shutil.copyfile(FIXTURES / RECORDS, folder / RECORDS)


def write_parquet(name: str, row: dict[str, Any]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist([row]), folder / name)

    return write


def write_reviewed(folder: Path) -> None:
    written("refer_json")(folder)
    samples.dump(folder / "filter.json", {"name": "mine", "by": "sent_id", "exclude": {"val": [1]}})


REGION = {"phrase": "mug", "x": 1, "y": 2, "w": 10, "h": 10}
PLACE = {"region_id": 1, "x": 1, "y": 2, "width": 20, "height": 9, "phrase": "a", "image_id": 101}
REGIONS = [{"id": 101, "regions": [PLACE]}]
IMAGE_DATA = [{"image_id": 101, "coco_id": 5, "width": 64, "height": 48}]
PHRASE = {"phrase": "a dog", "phrase_id": "7", "phrase_type": ["animals"]}
SENTENCES = {"101": [{"sentence": "a dog", "phrases": [PHRASE]}]}
BOXES = {"101": {"boxes": {"7": [[1, 2, 9, 9], [3, 3, 12, 12]]}, "width": 64, "height": 48}}
SAMPLE = {"id": 1, "category": "cup", "sentences": ["mug"], "bbox": [1.0, 2.0, 9.0, 9.0]}
SAMPLE["mask"] = {"counts": rle([1, 2, 9, 9]), "size": [48, 64]}
L4 = {"id": 1, "caption": "mug", "bbox": [1.0, 2.0, 9.0, 9.0], "bbox_id": "o365_1", "ori_category_id": "o365_6"}
L4 |= {"image_id": "o365_9", "height": 48, "width": 64, "file_name": "9.jpg", "split": "val"}
HARD = {"file_name": "101.jpg", "normal_caption": "mug", "solution": [1.0, 2.0, 9.0, 9.0], "width": 64, "height": 48}
HARD |= {"image_source": "coco_val2017", "use_negation": True, "distractors": "[[1, 2, 3, 4]]"}
OPEN_BOX = {"x": 1.5, "y": 2.0, "width": 50.0, "height": 9.0, "original_width": 64, "original_height": 48}
OPEN = [{"image": "a.jpg", "relation_type": "single", "proposal": [OPEN_BOX], "positive": "mug", "negative": "cup"}]
EDITED = {
    "images": [{"id": n, "file_name": "a.jpg", "caption": "mug", "width": 64, "height": 48} for n in (1, 2)],
    "annotations": [
        {"image_id": 1, "bbox": [1, 2, 9, 9], "level": 1},
        {"image_id": 2, "negative_type": "relation", "negative_level": 1, "negative_cate": "text", "positive_id": "1"},
    ],
}
LISTS = [{"image": "VG_100K/101.jpg", "caption": ["a", "b"], "bbox": [[1, 2, 9, 9]]}]

MASKS = {"image_id": 101, "samples": [SAMPLE]}
GOOGLE = rows_of(RefCOCO, "val", split_by="google")

LAYOUTS = (
    Door("refer pickle", samples.write_refer, rows_of(RefCOCO, "val")),
    Door("refer json", written("refer_json"), rows_of(RefCOCO, "val")),
    Door("grefs", samples.write_grefs, rows_of(GRefCOCO, "val")),
    Door("seqtr", written("seqtr"), rows_of(RefCOCO, "val")),
    Door("seqtr plus", one_json("refcocoplus-unc/instances", samples.seqtr_content()), rows_of(RefCOCOPlus, "train")),
    Door("mdetr", written("mdetr"), rows_of(RefCOCO, "val")),
    Door("mdetr phrases", one_json("final_flickr_separateGT_val", samples.mdetr_phrases()), rows_of(Flickr30k, "val")),
    Door("hub", written("hub"), rows_of(RefCOCO, "val")),
    Door("tensorflow records", write_records, rows_of(RefCOCO, "val")),
    Door("transvg", samples.write_transvg, rows_of(RefCOCO, "val")),
    Door("lines", write_lines, rows_of(RefCOCO, "val")),
    Door("vglaw pickle", write_pickle("refcoco(google).pkl", samples.vglaw_items()), GOOGLE),
    Door("regions", json_files(region_descriptions=REGIONS, image_data=IMAGE_DATA), rows_of(VisualGenome, "train")),
    Door("amc lists", json_files(vg_descriptions=LISTS, image_data=IMAGE_DATA), rows_of(AMCVisualGenome, "train")),
    Door("phrases", json_files(sentences_val=SENTENCES, bounding_boxes_val=BOXES), rows_of(Flickr30k, "val")),
    Door("entities", write_entities, rows_of(Flickr30k, "val")),
    Door("adversarial", write_adversarial, rows_of(RefAdv, "test")),
    Door("pairs pickle", write_pickle("priority_vg.pkl", {101: [[REGION, REGION]]}), rows_of(ARPGrounding, "priority")),
    Door("parquet masks", write_parquet("validation-0.parquet", MASKS), rows_of(RefCOCOM, "val")),
    Door("parquet boxes", write_parquet("ref-l4-val.parquet", L4), rows_of(RefL4, "val")),
    Door("hard parquet", write_parquet("train-0.parquet", HARD), rows_of(RefAdvS, "test")),
    Door("open lists", json_files(val=OPEN), rows_of(OpenRef, "val")),
    Door("edited", json_files(test_coco_format=EDITED), rows_of(FineCopsRef, "test")),
    Door("filter", write_reviewed, rows_of(RefCOCO, "val", filter="filter.json")),
)


def write_pictures(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(folder / "a.jpg", exif=exif)
    image.save(folder / "b.jpg", progressive=True)
    image.convert("CMYK").save(folder / "c.jpg")
    image.convert("RGBA").save(folder / "d.png")
    image.quantize(16).save(folder / "e.png", transparency=3)
    Image.fromarray(noise[..., 0].astype(np.uint16) * 200).save(folder / "f.png")
    for kind in ("tiff_deflate", "tiff_lzw", "jpeg", "packbits", "raw"):
        image.save(folder / f"g{kind}.tif", compression=kind)
    Image.fromarray(noise[..., 0].astype(np.float32)).save(folder / "h.tif")
    for ending in ("webp", "gif", "bmp", "ppm", "jp2", "avif"):
        try:
            image.save(folder / f"i.{ending}")
        except (OSError, KeyError, ValueError):  # not built with it
            continue


def use_pictures(folder: Path) -> list[Any]:
    """Only the damaged picture is worth decoding: the newest one."""
    newest = max(folder.iterdir(), key=lambda path: path.lstat().st_mtime_ns)
    if newest.is_file():  # who looks for images finds ordinary files only
        return [decode_image(newest, upright).shape for upright in (False, True)]
    return []


def write_archives(folder: Path) -> None:
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"set/{number}.json", json.dumps(list(range(50))))
    for name, mode in (("b.tar", "w"), ("c.tar.gz", "w:gz"), ("d.tar.xz", "w:xz")):
        with tarfile.open(folder / name, mode) as archive:  # type: ignore[call-overload]
            for number in range(3):
                content = json.dumps(list(range(50))).encode()
                member = tarfile.TarInfo(f"set/{number}.json")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


NAMES = ["../outside/x", "../../outside/x", "/EXECUTED", "a/../../outside/x", "C:x", "a\\..\\b", "", ".", "set", "a\0b"]
KINDS = [tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]


def hostile_archives(folder: Path, generator: random.Random) -> str:
    """Bytes changed, or members that a friendly tool never writes."""
    path = generator.choice(sorted(folder.iterdir()))
    if generator.random() < 0.6 or path.suffix == ".zip":
        if path.suffix == ".zip" and generator.random() < 0.5:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                info = zipfile.ZipInfo(generator.choice(NAMES).replace("\0", "") or "x")
                info.external_attr = generator.choice([0o120777, 0o100644, 0o010644, 0o040755, 0o104755]) << 16
                archive.writestr(info, generator.choice([b"../outside", b"\0" * 5_000_000, b"x"]))
            return f"{path.name} members"
        path.write_bytes(bytes_damage(path.read_bytes(), generator))
        return f"{path.name} bytes"
    with tarfile.open(path, "w") as archive:
        for _ in range(2):
            member = tarfile.TarInfo(generator.choice(NAMES).replace("\0", "") or "x")
            member.type = generator.choice(KINDS)
            member.linkname = "../outside"
            member.size = 5 if member.isreg() else 0
            archive.addfile(member, io.BytesIO(b"12345"))
    return f"{path.name} members"


def use_archives(folder: Path) -> None:
    """Unpack the newest one; nothing but files below the folder may come of it."""
    newest = max(folder.iterdir(), key=lambda path: path.lstat().st_mtime_ns)
    (folder / "work").mkdir()
    unpack(newest, folder / "made", folder / "work")
    for path in (folder / "made").rglob("*"):
        assert not path.is_symlink() and (path.is_dir() or path.is_file())


def write_shards(folder: Path) -> None:
    put_images(folder / "pictures")
    for part, numbers in enumerate(((101, 102), (103,))):
        with tarfile.open(folder / f"{part}.tar", "w") as archive:
            for number in numbers:
                archive.add(folder / "pictures" / name_of(number), name_of(number))
    shutil.rmtree(folder / "pictures")
    use_shards(folder)  # the index is made


def use_shards(folder: Path) -> list[Any]:
    shards = Shards.below(folder, folder / "cache")
    images = [shards and shards.find(name_of(number)) for number in (101, 102, 103)]
    return [image and decode_image(image).shape for image in images]


def write_cache(folder: Path) -> None:
    samples.write_refer(folder)
    rows_of(RefCOCO, "val")(folder)  # the table is made


def damage_cache(folder: Path, generator: random.Random) -> str:
    """One of the files that the suite keeps for itself; the annotations are whole."""
    path = generator.choice(sorted(path for path in (folder / "cache").rglob("*") if path.is_file()))
    if generator.random() < 0.1:
        return f"{path.name} {replaced(path, generator)}"
    path.write_bytes(bytes_damage(path.read_bytes(), generator))
    return f"{path.name} bytes"


def write_additional(folder: Path) -> None:
    AdditionalData.write(folder, table())
    put_images(folder / "images")


def use_additional(folder: Path) -> Any:
    return samples.content(AdditionalData.open(folder).table)


def write_detections(folder: Path) -> None:
    samples.dump(folder / "dets.json", {"101": [[1, 2, 3, 4, 0.5]], "102": [[1, 2, 3, 4]]})
    samples.dump(folder / "coco.json", [{"image_id": 101, "bbox": [1, 2, 3, 4], "score": 0.5}])


def use_detections(folder: Path) -> list[dict[int, torch.Tensor]]:
    from vgbench.methods.amc.heat import read_proposals

    return [read_proposals(folder / name) for name in ("dets.json", "coco.json")]


FILES = (
    Door("pictures", write_pictures, use_pictures),
    Door("archives", write_archives, use_archives, hostile_archives),
    Door("tar files of images", write_shards, use_shards),
    Door("cached tables", write_cache, rows_of(RefCOCO, "val"), damage_cache, same=True),
    Door("additional data", write_additional, use_additional),
    Door("detections", write_detections, use_detections),
)
