"""Generation of the files: images, annotations and expressions in the layouts of RefCOCO and gRefCOCO.

A *pool* is a folder with everything that belongs together:

    images/train2014/refshapes_000000000001.jpg ...
    refshapes/   refs(unc).p   instances.json  logic.json
    refshapes+/  refs(unc).p   instances.json  logic.json
    refshapesg/  refs(umd).p   instances.json  logic.json
    grefshapes/  grefs(unc).json  instances.json  logic.json
    scenes.json

``instances.json`` holds all objects of all images. ``logic.json`` (logical form per sent_id) and ``scenes.json``
(attributes, visible boxes and coverings of the objects per image_id) go beyond the official layouts.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from vgbench.core.console import progress
from vgbench.core.errors import UserError
from vgbench.core.files import naming
from vgbench.core.processes import child_environment, usable_cores
from vgbench.datasets.refshapes.expressions import FLAVOURS, describable, refer
from vgbench.datasets.refshapes.render import encode_jpeg, paint, segmentation
from vgbench.datasets.refshapes.scene import ANGULAR, ATTRIBUTES, ROUND, Scene, sample_scene

VERSION = 6  # of the generator: any change of what it makes is a new version
POOLS = {"base": ("train", "val", "testA", "testB"), "pretrain": ("pretrain",)}
IMAGES = {"train": 3600, "val": 400, "testA": 300, "testB": 300, "pretrain": 12_000}  # per split
REFS_FILES = {
    "refshapes": "refs(unc).p",
    "refshapes+": "refs(unc).p",
    "refshapesg": "refs(umd).p",
    "grefshapes": "grefs(unc).json",
}
FIRST_ID = {"base": 1, "pretrain": 1_000_001}  # of images, refs and sentences: none is in both pools
IMAGE_FOLDER = "images/train2014"
REPORT_EVERY = 10  # scenes between two signs of life of a worker


@dataclass(frozen=True)
class Options:
    """What the files depend on.

    Attributes:
        seed: another seed, other scenes.
        side: width and height of the images in pixels.
        images: number of images per split.
    """

    seed: int
    side: int
    images: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, seed: int = 0, side: int = 128, images: Mapping[str, int] | None = None) -> Options:
        """``images`` replaces the default number of images of the splits it names.

        Raises:
            UserError: if a value makes no sense.
        """
        unknown = set(images or {}) - set(IMAGES)
        if unknown:
            raise UserError(
                f"refshapes: images={dict(images or {})}: no split {unknown.pop()!r}; use {', '.join(IMAGES)}"
            )
        counts = {**IMAGES, **(images or {})}
        if any(not 0 < count < 900_000 for count in counts.values()):
            raise UserError(f"refshapes: images={counts}: every split needs 1 to 899,999 images")
        if not 64 <= side <= 1024:
            raise UserError(f"refshapes: side={side}: images are 64 to 1024 pixels wide")
        return cls(int(seed), int(side), tuple((split, int(count)) for split, count in counts.items()))

    @property
    def folder(self) -> str:
        """Name of the folder of the pools: the same for the same options and version of the generator."""
        digest = hashlib.sha256(json.dumps([VERSION, asdict(self)]).encode()).hexdigest()[:8]
        return f"refshapes-v{VERSION}-{self.side}px-seed{self.seed}-{digest}"

    def tasks(self, pool: str) -> list[tuple[int, str, int]]:
        """(image id, split, number within the split) of every scene of a pool."""
        scenes = [(split, index) for split in POOLS[pool] for index in range(dict(self.images)[split])]
        return [(FIRST_ID[pool] + position, split, index) for position, (split, index) in enumerate(scenes)]


def make_scene(options: Options, split: str, index: int) -> tuple[Scene, random.Random]:
    """A scene of a split and the random numbers that go on from there. Every split has its own stream."""
    rng = random.Random(f"refshapes/{options.seed}/{options.side}/{split}/{index}")
    shapes = ATTRIBUTES["shape"]
    targets = target_shapes(split)
    while True:
        scene = sample_scene(rng, options.side, shapes, [3.0 if shape in targets else 1.0 for shape in shapes])
        if len(describable(scene, targets)) >= 2:
            return scene, rng


def target_shapes(split: str) -> tuple[str, ...]:
    """testA refers to round things only and testB to angular ones, as RefCOCO's do to people and other things."""
    return {"testA": ROUND, "testB": ANGULAR}.get(split, ATTRIBUTES["shape"])


def make_record(options: Options, image_id: int, split: str, index: int) -> tuple[dict[str, Any], bytes]:
    """Everything about one image for JSON, and the image as a JPEG file. Ids of refs and sentences come later."""
    scene, rng = make_scene(options, split, index)
    picture = encode_jpeg(paint(scene, rng))
    ann_ids = [image_id * 10 + position for position in range(len(scene.objects))]
    annotations: list[dict[str, Any]] = []
    for ann_id, item, box, position in zip(ann_ids, scene.objects, scene.boxes, range(len(ann_ids)), strict=True):
        visible = scene.visible(position)
        annotations.append(
            {
                "id": ann_id,
                "image_id": image_id,
                "category_id": ATTRIBUTES["shape"].index(item.shape) + 1,
                "bbox": [float(value) for value in box],
                "area": float(visible.sum()),
                "iscrowd": 0,
                "segmentation": segmentation(visible),
            }
        )
    record = {
        "split": split,
        "image": {
            "id": image_id,
            "file_name": f"refshapes_{image_id:012d}.jpg",
            "width": options.side,
            "height": options.side,
            "license": 1,
        },
        "categories": {annotation["id"]: annotation["category_id"] for annotation in annotations},
        "annotations": json.dumps(annotations, separators=(",", ":"))[1:-1],  # text: put together, never parsed
        "scene": {
            "split": split,
            "objects": [
                {
                    "ann_id": ann_id,
                    **item.attributes,
                    "box": list(box),
                    "visible": round(annotation["area"] / int(item.solid.sum()), 3),
                }
                for ann_id, item, box, annotation in zip(ann_ids, scene.objects, scene.boxes, annotations, strict=True)
            ],
            "covers": [[ann_ids[front], ann_ids[back], pixels] for (front, back), pixels in scene.covers.items()],
        },
        "refs": {
            flavour: [
                {"ann_ids": [ann_ids[target] for target in ref.targets], "sentences": ref.sentences}
                for ref in refer(flavour, scene, rng, target_shapes(split))
            ]
            for flavour in FLAVOURS
        },
    }
    return record, picture


def ensure(parent: Path, options: Options, pool: str) -> Path:
    """The folder of a pool below ``parent``, generated if it is not there.

    It gets its name when it is complete. One process generates, others that ask meanwhile wait for it.

    Raises:
        UserError: if the folder cannot be written.
    """
    home = parent / options.folder
    target = home / pool
    if target.is_dir():
        return target
    try:
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(home / f".{pool}.lock"):
            if not target.is_dir():
                for left in home.glob(f".{pool}-*"):  # of a process that was killed
                    shutil.rmtree(left)
                temporary = home / f".{pool}-{uuid.uuid4().hex}"
                try:
                    generate(temporary, options, pool)
                    temporary.replace(target)
                finally:
                    shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{home}: cannot be written ({error.strerror}); set VGBENCH_CACHE to another folder") from error
    return target


def generate(folder: Path, options: Options, pool: str, processes: int | None = None) -> None:
    """Write a pool into ``folder``. The files do not depend on the number of processes (None: one per core)."""
    (folder / IMAGE_FOLDER).mkdir(parents=True)
    tasks = options.tasks(pool)
    if processes is None:
        processes = max(1, min(usable_cores(), 16, len(tasks) // 50))
    records = sorted(_records(folder, options, pool, processes), key=lambda record: record["image"]["id"])
    with naming(folder):
        _write_annotations(folder, options, records, FIRST_ID[pool])


def _records(folder: Path, options: Options, pool: str, processes: int) -> Iterator[dict[str, Any]]:
    """Have worker processes make the scenes; shows a progress bar.

    They are plain commands and not ``multiprocessing``, which would run the caller's script a second time.
    """
    environment = child_environment()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = "1"
    command = [sys.executable, "-c", f"from {__name__} import work; work()"]
    workers: list[subprocess.Popen[str]] = []
    try:
        for share in range(processes):
            job = {"folder": str(folder), "options": asdict(options), "pool": pool, "share": [share, processes]}
            pipe = subprocess.PIPE
            worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment, text=True)
            workers.append(worker)
            assert worker.stdin is not None
            with worker.stdin:
                json.dump(job, worker.stdin)
        with progress(f"RefShapes: rendering {pool} (once)") as show:
            done = 0
            for line in _lines(workers, folder):
                done += int(line)
                show(done, len(options.tasks(pool)))
        for share in range(processes):
            part = folder / _part(share)
            yield from map(json.loads, part.read_text().splitlines())
            part.unlink()
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


NO_ROOM = 74  # exit code of a worker that cannot write (EX_IOERR of sysexits.h)


def _lines(workers: list[subprocess.Popen[str]], folder: Path) -> Iterator[str]:
    """What the workers print, one line of each in turn: their shares are equal."""
    running = list(workers)
    while running:
        for worker in list(running):
            assert worker.stdout is not None
            line = worker.stdout.readline()
            if line:
                yield line
            elif worker.wait():
                if worker.returncode == NO_ROOM:
                    raise UserError(f"{folder}: RefShapes could not be rendered there (is the disk full?)")
                raise RuntimeError(f"a worker that renders RefShapes ended with exit code {worker.returncode}")
            else:
                running.remove(worker)
                worker.stdout.close()


def _part(share: int) -> str:
    return f"part-{share}.jsonl"


def work() -> None:
    """A worker: reads its job from standard input, prints how many scenes it has made since the last line."""
    try:
        _make_share(json.load(sys.stdin))
    except OSError:  # a full disk, a folder that cannot be written: whoever started it says which
        sys.exit(NO_ROOM)


def _make_share(job: dict[str, Any]) -> None:
    folder = Path(job["folder"])
    share, processes = job["share"]
    options = Options.of(**{**job["options"], "images": dict(job["options"]["images"])})
    records: list[str] = []
    told = 0
    for image_id, split, index in options.tasks(job["pool"])[share::processes]:
        record, picture = make_record(options, image_id, split, index)
        (folder / IMAGE_FOLDER / record["image"]["file_name"]).write_bytes(picture)
        records.append(json.dumps(record))
        if len(records) - told == REPORT_EVERY:
            told = len(records)
            print(REPORT_EVERY, flush=True)
    (folder / _part(share)).write_text("\n".join(records))
    print(len(records) - told, flush=True)


def _write_annotations(folder: Path, options: Options, records: list[dict[str, Any]], first_id: int) -> None:
    instances = {
        "info": {
            "description": "RefShapes: rendered scenes in the layout of COCO, made by VGBench",
            "version": str(VERSION),
            "seed": options.seed,
        },
        "licenses": [{"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
        "images": [record["image"] for record in records],
        "categories": [
            {"id": number, "name": shape, "supercategory": "round" if shape in ROUND else "angular"}
            for number, shape in enumerate(ATTRIBUTES["shape"], 1)
        ],
    }
    _write_json(folder / "scenes.json", {record["image"]["id"]: record["scene"] for record in records})
    head = json.dumps(instances, separators=(",", ":"))[:-1]
    annotations = ",".join(record["annotations"] for record in records)
    (folder / "instances.json").write_text(f'{head},"annotations":[{annotations}]}}')
    for flavour in FLAVOURS:
        refs, logic = _number(flavour, records, first_id)
        (folder / flavour).mkdir()
        _write_json(folder / flavour / "logic.json", logic)
        target = folder / flavour / REFS_FILES[flavour]
        if target.suffix == ".json":
            _write_json(target, refs)
        else:
            target.write_bytes(pickle.dumps(refs, protocol=2))
        _share(folder / "instances.json", folder / flavour / "instances.json")
    (folder / "instances.json").unlink()


def _number(
    flavour: str, records: list[dict[str, Any]], first_id: int
) -> tuple[list[dict[str, Any]], dict[int, list[Any]]]:
    """Refs with running ids as the official files have them, and the logical form of every sentence."""
    several = flavour == "grefshapes"
    refs: list[dict[str, Any]] = []
    logic: dict[int, list[Any]] = {}
    for record in records:
        image = record["image"]
        for ref in record["refs"][flavour]:
            sentences = []
            for form, raw in ref["sentences"]:
                sent_id = first_id + len(logic)
                logic[sent_id] = form
                sent = "".join(letter for letter in raw.lower() if letter not in ".,")
                sentences.append({"sent_id": sent_id, "sent": sent, "raw": raw, "tokens": sent.split()})
            ref_id = first_id + len(refs)
            ann_ids = ref["ann_ids"] or [-1]
            category_ids = [record["categories"].get(str(ann_id), -1) for ann_id in ann_ids]
            refs.append(
                {
                    "ref_id": ref_id,
                    "ann_id": ann_ids if several else ann_ids[0],
                    "image_id": image["id"],
                    "category_id": category_ids if several else category_ids[0],
                    "split": record["split"],
                    "file_name": image["file_name"].replace(".jpg", f"_{ref_id}.jpg"),
                    "sent_ids": [sentence["sent_id"] for sentence in sentences],
                    "sentences": sentences,
                }
            )
    return refs, logic


def _share(source: Path, target: Path) -> None:
    """The same file under a second name, without taking room twice where the file system can do that."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, separators=(",", ":")))
