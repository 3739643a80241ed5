"""Small datasets that the tests of loaders write in one layout or another, and what should come out of them."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vgbench.data.builder import ImageRecord, TableBuilder, Targets
from vgbench.datasets.vg import evaluation_images

IMAGES = {101: (64, 48), 102: (50, 60), 103: (40, 40)}  # id -> width, height
OVERLAPPING = [[10, 10, 30, 10, 30, 30, 10, 30], [20, 20, 40, 20, 40, 40, 20, 40]]  # two squares of 20, sharing 10 x 10
RLE = {"size": [60, 50], "counts": [600, 1200, 1200]}  # columns 10 to 29 of image 102
ANNOTATIONS = {
    11: {"image_id": 101, "bbox": [10, 10, 30, 30], "segmentation": OVERLAPPING, "category_id": 1},
    12: {"image_id": 101, "bbox": [50.25, 5.5, 13.75, 20], "segmentation": [[50, 5, 64, 5, 64, 25]], "category_id": 2},
    21: {"image_id": 102, "bbox": [10, 0, 20, 60], "segmentation": RLE, "category_id": 1},
    31: {
        "image_id": 103,
        "bbox": [-1.5, 0, 21.5, 10],
        "segmentation": [[0, 0, 20, 0, 20, 10, 0, 10]],
        "category_id": 2,
    },
}
# split, annotation ids, sentences
REFS = [
    ("train", [11], ["The MUG, left!", "mug"]),
    ("train", [12], ["right one"]),
    ("val", [21], ["Caf\u00e9 sign", "sign"]),
    ("testA", [31], ["top"]),
    ("testB", [31], ["corner"]),
]
GREFS = [
    ("train", [11, 12], ["both", "mug & the other"]),
    ("train", [], ["a giraffe"]),
    ("train", [21], ["stripe"]),
    ("val", [12, 11], ["two things"]),
    ("val", [], ["no such thing"]),
    ("val", [31], ["top"]),
    ("testA", [31], ["top"]),
    ("testB", [31], ["top"]),
]
REAL = Path(__file__).parents[3] / "shared" / "data" / "real"


def image_name(image_id):
    return f"COCO_train2014_{image_id:012d}.jpg"


def refs_as_dicts(refs, ann_id=lambda anns: anns[0]):
    sent_id = 100
    out = []
    for number, (split, anns, sentences) in enumerate(refs):
        image_id = ANNOTATIONS[anns[0]]["image_id"] if anns else 103
        dicts = []
        for raw in sentences:
            sent = "".join(c for c in raw.lower() if c.isalnum() or c == " ")
            dicts.append({"sent_id": sent_id, "sent": sent, "raw": raw, "tokens": sent.split()})
            sent_id += 1
        out.append(
            {
                "ref_id": 7 + number,
                "ann_id": ann_id(anns),
                "image_id": image_id,
                "category_id": 1,
                "split": split,
                "file_name": f"COCO_train2014_{image_id:012d}_{number}.jpg",
                "sent_ids": [d["sent_id"] for d in dicts],
                "sentences": dicts,
            }
        )
    return out


def instances():
    return {
        "info": {"year": 2014},
        "licenses": [],
        "images": [
            {"id": i, "file_name": image_name(i), "width": w, "height": h, "license": 1} for i, (w, h) in IMAGES.items()
        ],
        "annotations": [{"id": k, "area": 1.0, "iscrowd": 0, **a} for k, a in ANNOTATIONS.items()],
        "categories": [{"id": 1, "name": "cup", "supercategory": "x"}, {"id": 2, "name": "vase", "supercategory": "x"}],
    }


def python2_pickle(value):
    """Protocol 0 as Python 2 wrote it: byte strings for ASCII text, unicode for the rest."""

    def write(value):
        if isinstance(value, dict):
            return b"(d" + b"".join(write(k) + write(v) + b"s" for k, v in value.items())
        if isinstance(value, list):
            return b"(l" + b"".join(write(v) + b"a" for v in value)
        if isinstance(value, int):
            return b"I%d\n" % value
        if value.isascii():
            return b"S" + repr(value).encode() + b"\n"
        return b"V" + value.encode("raw-unicode-escape") + b"\n"

    return write(value) + b"."


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_refer(root, refs=REFS, folder="refcoco", name="refs(unc).p"):
    dump(root / folder / "instances.json", instances())
    (root / folder / name).write_bytes(python2_pickle(refs_as_dicts(refs)))
    return root


def write_grefs(root, ann_id=lambda anns: anns or [-1]):
    dump(root / "grefcoco" / "instances.json", instances())
    dump(root / "grefcoco" / "grefs(unc).json", refs_as_dicts(GREFS, ann_id))
    return root


def seqtr_head(image_id):
    width, height = IMAGES[image_id]
    return {"image_id": image_id, "width": width, "height": height}


def seqtr_content(refs=REFS):
    content = {"info": {"made": "by hand"}}
    for split, (ann,), sentences in refs:
        record = ANNOTATIONS[ann]
        head = {**seqtr_head(record["image_id"]), "bbox": record["bbox"], "mask": record["segmentation"]}
        groups = [sentences] if split == "train" else [[s] for s in sentences]
        content.setdefault(split, []).extend({**head, "expressions": group} for group in groups)
    return content


def write_seqtr(root, folder="refcoco-unc", content=None):
    dump(root / "annotations" / folder / "instances.json", content or seqtr_content())
    return root


def seqtr_grouped(group_all):
    """gRefCOCO entries: training grouped by image, evaluation by image or one per expression."""
    content = {}
    for split, anns, sentences in GREFS:
        image_id = ANNOTATIONS[anns[0]]["image_id"] if anns else 103
        entries = content.setdefault(split, [])
        for text in sentences:
            known = next((e for e in entries if e["image_id"] == image_id), None)
            if known is None or not (group_all or split == "train"):
                known = {**seqtr_head(image_id), "expressions": [], "bbox": [], "annotations": [], "segmentation": []}
                entries.append(known)
            known["expressions"].append(text)
            if anns:
                known["bbox"].append([ANNOTATIONS[a]["bbox"] for a in anns])
                known["annotations"].append([{"original_id": a, "category_id": 1, "empty": False} for a in anns])
                known["segmentation"].append([ANNOTATIONS[a]["segmentation"] for a in anns])
            else:
                known["bbox"].append([[0, 0, 0, 0]])
                known["annotations"].append([{"category_id": -1, "area": -1, "empty": True}])
                known["segmentation"].append([])
    return content


def with_ids(content):
    """As PropVG and InstanceVG write it: every entry has the id of its annotation."""
    known = {(record["image_id"], *record["bbox"]): ann for ann, record in ANNOTATIONS.items()}
    for entries in content.values():
        for entry in entries if isinstance(entries, list) else []:
            entry["id"] = known[(entry["image_id"], *entry["bbox"])]
    return content


def seqtr_flat(as_list=False):
    """gRefCOCO as PropVG and InstanceVG write it: an entry per expression, all of its annotations are targets."""
    content = {}
    for split, anns, sentences in GREFS:
        image_id = ANNOTATIONS[anns[0]]["image_id"] if anns else 103
        targets = [{**ANNOTATIONS[ann], "id": ann} for ann in anns] or [{"bbox": None, "segmentation": None}]
        head = {**seqtr_head(image_id), "file_name": image_name(image_id), "annotations": targets}
        for raw in [sentences] if as_list else sentences:
            content.setdefault(split, []).append({**head, "expressions": {"raw": raw, "sent": "x"}})
    return content


def mixed_seg_content(ids=True):
    """The merge of three SeqTR files: ``train`` of all, the other splits with the name of their dataset."""
    content = {"train": []}
    for name, splits in (("refcoco_unc", "val testA testB"), ("refcoco_plus", ""), ("refcocog_umd", "val test")):
        part = seqtr_content()
        part["test"] = part["testA"]
        part = with_ids(part) if ids else part
        content["train"] += part["train"]
        content.update({f"{split}_{name}": part[split] for split in splits.split()})
    return content


def open_set(kind, root, **options):
    return kind(root, cache_dir=root / "cache", **options)


def content(table):
    """What an expression is, whichever file it came from."""
    return sorted(
        (
            row.image_id,
            row.image,
            row.width,
            row.height,
            row.expression,
            row.boxes.tolist(),
            [mask["counts"] for mask in row.masks],
            row.polygons,
            row.source,
            row.split,
        )
        for row in table
    )


def put_images(folder, name=image_name, sizes=IMAGES):
    folder.mkdir(parents=True, exist_ok=True)
    for image_id, size in sizes.items():
        Image.new("RGB", size).save(folder / name(image_id))


def write_transvg(root, boxes="xywh"):
    rows = {}
    for split, (ann,), sentences in REFS:
        image_id, (x, y, w, h) = ANNOTATIONS[ann]["image_id"], ANNOTATIONS[ann]["bbox"]
        box = [x, y, w, h] if boxes == "xywh" else [x, y, x + w, y + h]
        for number, text in enumerate(sentences):
            # lists, tensors and arrays all occur in circulating files
            box = [box, np.array(box), torch.tensor(box, dtype=torch.float64)][number % 3]
            rows.setdefault(split, []).append((image_name(image_id), f"{ann}.pth", box, text, [("r1", ["none"])]))
    for split, values in rows.items():
        (root / "data" / "unc").mkdir(parents=True, exist_ok=True)
        torch.save(values, root / "data" / "unc" / f"unc_{split}.pth")
    put_images(root / "images" / "train2014")
    return root


def table_of(rows, source="coco"):
    """(image id, expression) pairs as a table."""
    builder = TableBuilder("made", "train", "rec")
    for index, (image_id, expression) in enumerate(rows):
        image = ImageRecord(image_id, f"{image_id}.jpg", 10, 10, source)
        builder.add(str(index), image, expression, Targets([[0, 0, 5, 2]], categories=["cup"]), index)
    return builder.table()


def merged_content():
    leaked = min(evaluation_images())
    box = {"width": 64, "height": 48, "bbox": [1, 2, 10, 10]}
    entries = [(101, "coco"), (leaked, "coco"), (5, "vg"), (6, "visual-genome"), (8, "saiaprtc12"), (9, "flickr")]
    return {
        "train": [{**box, "image_id": i, "data_source": s, "expressions": ["a", "b"]} for i, s in entries],
        "val_flickr30k": [{**box, "image_id": 9, "expressions": ["c"]}],
        "val_refcoco_unc": [{**box, "image_id": leaked, "expressions": ["d"]}],
    }


def minigpt_rows():
    return [
        {
            "img_id": f"COCO_train2014_{image_id:012d}_{suffix}",
            "sents": text,
            "bbox": [1.5, 2, 10, 10.25],
            "height": 48,
            "width": 64,
        }
        for image_id, suffix, text in [(101, 5, "one"), (101, 5, ["two", "three"]), (101, 6, "four")]
    ]


def mdetr_phrases():
    image = {"id": 4, "file_name": "36979.jpg", "width": 64, "height": 48, "caption": "Two dogs chase a red ball"}
    boxes = [([5, 5, 10, 10], [[0, 8]]), ([30, 8, 10, 12], [[0, 8]]), ([50, 40, 4, 4], [[15, 25]])]
    annotations = [
        {"id": i, "image_id": 4, "bbox": box, "tokens_positive": span, "category_id": 1, "iscrowd": 0}
        for i, (box, span) in enumerate(boxes)
    ]
    return {"images": [image], "annotations": annotations}


def vglaw_items():
    entry = {"image_id": 101, "bbox": [1, 2, 10, 10], "phrase": "cup", "ref_id": 3}
    return {"index": 0, "items": {"val": [entry, {**entry, "ref_id": 4}]}}
