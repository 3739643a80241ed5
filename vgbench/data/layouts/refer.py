"""The ``refer`` layout of RefCOCO and its relatives, gRefCOCO included: expressions in a pickle or JSON file of refs,
images and objects in ``instances.json``.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vgbench.core.arrays import load_plain
from vgbench.core.errors import UserError
from vgbench.data.builder import ImageRecord, Targets
from vgbench.data.checks import BadSample, check_name, check_size, read_json, take
from vgbench.data.layouts.base import Layout, LayoutDataset, folders
from vgbench.data.layouts.targets import TargetReader, add_ref, coco_target, expression_of
from vgbench.data.layouts.writing import Contents, DatasetNames, Ids, Tables, Writer, add_image, grouped, word_spans
from vgbench.data.scene import Scenes, coco_scenes, image_sizes
from vgbench.data.table import AnnotationTable


def read_pickle(path: Path) -> Any:
    """Read a pickle of plain values, written by Python 2 or 3, without executing anything; NumPy's are made plain.

    Raises:
        UserError: if the file is damaged or refers to any other class or function (named in the message).
    """
    try:
        return load_plain(path)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path}: not read ({reason}); refs are lists, dictionaries, numbers and strings: convert what else they "
            f"hold before they are dumped, or save them as {path.stem}.json"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # a damaged pickle raises almost anything
        raise UserError(f"{path}: not a valid pickle ({error!r}); the file is damaged or truncated") from None


def read_refs(path: Path) -> list[Any]:
    """The list of refs in a pickle (``.p``, ``.pkl``) or JSON file."""
    refs = read_json(path) if path.suffix == ".json" else read_pickle(path)
    if not isinstance(refs, list):
        raise UserError(f"{path}: holds a {type(refs).__name__}, expected a list of refs")
    return refs


@dataclass(frozen=True)
class ReferNames:
    """What a dataset is called in the refer layout: its folders, and the file of refs in them."""

    folders: tuple[str, ...]
    refs: tuple[str, ...]


class Instances:
    """``instances.json``: images, annotations and category names by id; records are checked when they are used."""

    def __init__(self, path: Path) -> None:
        content = read_json(path)
        self.images = _by_id(path, content, "images")
        self.annotations = _by_id(path, content, "annotations")
        categories = _by_id(path, content, "categories") if "categories" in content else {}
        self.categories = {key: _name(value.get("name", key)) for key, value in categories.items()}


def _name(value: Any) -> str:
    return str(value).encode("utf-8", "replace").decode()


def _by_id(path: Path, content: Any, key: str) -> dict[Any, dict[str, Any]]:
    records = content.get(key) if isinstance(content, dict) else None
    if not isinstance(records, list):
        raise UserError(f"{path}: no list under the key {key!r}; expected images, annotations and categories")
    by_id: dict[Any, dict[str, Any]] = {}
    for index, record in enumerate(records):
        if not isinstance(record, dict) or not isinstance(record.get("id"), (int, str)):
            raise UserError(f"{path}: {key}[{index}] has no 'id'")
        if by_id.setdefault(record["id"], record) is not record:
            raise UserError(f"{path}: {key}[{index}] has the id {record['id']!r} of an earlier one")
    return by_id


class ReferLayout(Layout):
    """``<folder>/refs(<split_by>).p`` (or ``grefs(...).json``) and ``<folder>/instances.json``."""

    key = "refer"

    @classmethod
    def folder_names(cls, names: ReferNames) -> tuple[str, ...]:
        return names.folders

    @classmethod
    def find(cls, data: LayoutDataset) -> Layout | None:
        names: ReferNames | None = data.layout_names.get(cls.key)
        if names is None:
            return None
        for folder in folders(data.data_root, names.folders):
            for name in names.refs:
                if (folder / name).is_file() and (folder / "instances.json").is_file():
                    return cls(data, {"refs": folder / name, "instances": folder / "instances.json"})
        return None

    @classmethod
    def expects(cls, data: LayoutDataset) -> str:
        names: ReferNames | None = data.layout_names.get(cls.key)
        return "" if names is None else f"{names.folders[0]}/{{{' or '.join(names.refs)}, instances.json}}"

    def sources(self, split: str) -> list[Path]:
        return list(self.files.values())

    def read(self, split: str) -> AnnotationTable:
        """The refs of ``split``, their objects looked up in ``instances.json``."""
        refs_path = self.files["refs"]
        refs = self.data.parse_file(refs_path, read_refs)
        instances = self.data.parse_file(self.files["instances"], Instances)
        per_image = self.data.multi_target and split == "train"  # gRefCOCO's official recipe draws images
        builder = self.data.builder(split, self, "image" if per_image else "ref")
        splits: set[str] = set()
        reader = TargetReader()
        for index, ref in enumerate(refs):
            with builder.sample(f"{refs_path}: ref {index}", sentence_count(ref)):
                splits.add(ref_split := take(ref, "split", str))
                if ref_split != split:
                    continue
                image = self._image(ref, instances)
                targets = self._targets(ref, image, instances, reader)
                ref_id = take(ref, "ref_id", int)
                sentences = [(expression_of(s), _sent_id(s, i)) for i, s in enumerate(take(ref, "sentences", list))]
                add_ref(builder, ref_id, image, sentences, targets, image.id if per_image else index)
        if split not in splits:
            raise UserError(
                f"{refs_path}: no ref of split {split!r}; splits in the file: {', '.join(sorted(splits)) or 'none'}"
            )
        if reader.without_mask and len(builder):
            builder.notes.append(f"{reader.without_mask:,} target(s) have no mask")
        return builder.table()

    def scenes(self, split: str) -> Scenes | None:
        """What ``instances.json`` has of the images of ``split``."""
        path = self.files["instances"]
        instances = self.data.parse_file(path, Instances)
        try:
            sizes = image_sizes(self.data.load(split))
            return coco_scenes(instances.annotations.values(), instances.categories, sizes)
        except (BadSample, KeyError) as error:
            raise UserError(f"{path}: an annotation cannot be used ({error})") from None

    def _image(self, ref: dict[str, Any], instances: Instances) -> ImageRecord:
        image_id = take(ref, "image_id", int)
        image = instances.images.get(image_id)
        if image is None:
            raise BadSample("image_id without an image", f"image_id {image_id}")
        file_name = check_name(take(image, "file_name", str))
        width, height = check_size(take(image, "width", int), take(image, "height", int))
        return ImageRecord(image_id, file_name, width, height, self.data.source)

    def _targets(self, ref: dict[str, Any], image: ImageRecord, instances: Instances, reader: TargetReader) -> Targets:
        ann_id = ref.get("ann_id") if self.data.multi_target else take(ref, "ann_id", (int, str))
        ann_ids = ann_id if isinstance(ann_id, list) else [] if ann_id is None else [ann_id]
        if ann_ids == [-1]:  # the no-target mark of gRefCOCO
            ann_ids = []
        if not ann_ids and not self.data.multi_target:
            raise BadSample("no target", f"ann_id {ann_id!r}")
        targets = []
        for ann in ann_ids:
            record = instances.annotations.get(ann) if isinstance(ann, (int, str)) else None
            if record is None:
                raise BadSample("ann_id without an annotation", f"ann_id {ann!r}")
            if take(record, "image_id", int) != image.id:
                raise BadSample("annotation of another image", f"ann_id {ann}, image_id {image.id}")
            category = instances.categories.get(record.get("category_id"))
            targets.append({**coco_target(record), "ann_id": ann, "category": category})
        return reader.gather(targets, image.width, image.height)


def sentence_count(ref: Any) -> int:
    """How many expressions a ref holds that cannot be used; 1 where it does not tell."""
    sentences = ref.get("sentences") if isinstance(ref, dict) else None
    return len(sentences) if isinstance(sentences, list) else 1


def _sent_id(sentence: Any, index: int) -> int:
    return take(sentence, "sent_id", int) if isinstance(sentence, dict) and "sent_id" in sentence else index


def write_refer(tables: Tables, names: DatasetNames) -> Contents:
    """``instances.json`` and the refs of all splits, as a pickle or, for several targets, as JSON."""
    multi = names.multi
    folder = names.layout_names[ReferLayout.key].folders[0] if ReferLayout.key in names.layout_names else names.name
    ids, sent_id = Ids(tables), 0
    images: dict[int, dict[str, Any]] = {}
    refs: list[dict[str, Any]] = []
    old_ids = [row.ref_id for table in tables.values() for row in table]
    keep_ids = None not in old_ids
    for split, table in tables.items():
        for rows in grouped(table):
            first = rows[0]
            add_image(images, first)
            ann_ids = ids.of(first)
            sentences = []
            for row in rows:
                number = sent_id if row.sent_id is None else row.sent_id
                sent = word_spans(row.expression)
                sentences.append({"sent_id": number, "sent": sent, "raw": row.expression, "tokens": sent.split()})
                sent_id += 1
            categories = [ids.annotations[ann]["category_id"] for ann in ann_ids]
            refs.append(
                {
                    "ref_id": first.ref_id if keep_ids else len(refs),
                    "ann_id": (ann_ids or [-1]) if multi else ann_ids[0],
                    "image_id": first.image_id,
                    "category_id": (categories or [-1]) if multi else categories[0],
                    "split": split,
                    "file_name": first.image,
                    "sent_ids": [sentence["sent_id"] for sentence in sentences],
                    "sentences": sentences,
                }
            )
    annotations = []
    for record in ids.annotations.values():  # the refer API takes the first element to see what a segmentation is
        part = {"segmentation": [record["segmentation"]]} if "segmentation" in record else {"segmentation": []}
        annotations.append({**record, **part})
    yield (
        f"{folder}/instances.json",
        {
            "info": {"description": names.name},
            "licenses": [],
            "images": list(images.values()),
            "annotations": annotations,
            "categories": ids.category_records(),
        },
    )
    yield f"{folder}/" + (f"grefs({names.split_by}).json" if multi else f"refs({names.split_by}).p"), refs


def write_refer_json(tables: Tables, names: DatasetNames) -> Contents:
    """The same with the refs as JSON."""
    for path, content in write_refer(tables, names):
        yield str(Path(path).with_suffix(".json")), content


REFER = Writer("refer", write_refer, single_box=True)
REFER_JSON = Writer("refer_json", write_refer_json, single_box=True)  # with JSON in place of the pickle
