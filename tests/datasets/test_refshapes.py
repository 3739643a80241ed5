"""RefShapes: what the expressions say is true of the scenes, what the masks show is visible, and nothing is random."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickletools
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from vgbench.core.errors import UserError
from vgbench.core.registry import Registry
from vgbench.data.layouts.refer import read_refs
from vgbench.data.verify import verify
from vgbench.datasets.refshapes import GRefShapes, RefShapes, RefShapesG, RefShapesPlus, build, vocabulary
from vgbench.datasets.refshapes.build import Options

FLAVOURS = (RefShapes, RefShapesPlus, RefShapesG, GRefShapes)
SPLITS = ("train", "val", "testA", "testB")
IMAGES = {"train": 30, "val": 10, "testA": 10, "testB": 10, "pretrain": 20}
SIDE = 128


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with the small build."""
    folder = tmp_path_factory.mktemp("cache")
    for split in ("train", "pretrain"):
        RefShapes(cache_dir=folder, images=IMAGES).pool(split)
    return folder


@pytest.fixture(params=FLAVOURS, ids=lambda kind: kind.name)
def data(request, cache):
    return request.param(cache_dir=cache, images=IMAGES)


def read(path: Path):
    return json.loads(path.read_text())


def pool_files(data, split="train"):
    pool = data.pool(split)
    refs = read_refs(next(path for path in (pool / data.name).iterdir() if "refs" in path.name))
    return refs, read(pool / "scenes.json"), read(pool / data.name / "logic.json")


class World:
    """An evaluator of logical forms written from the card alone: objects are dictionaries of scenes.json."""

    def __init__(self, scene, wobble=0.0, rng=None):
        self.objects = scene["objects"]
        self.covers = {(front, back) for front, back, _ in scene["covers"]}
        self.centre = {}
        for item in self.objects:
            x, y, w, h = item["box"]
            dx, dy = (rng.uniform(-wobble, wobble) * SIDE if rng else 0 for _ in range(2))
            self.centre[item["ann_id"]] = (x + w / 2 + dx, y + h / 2 + dy)

    def meaning(self, form):
        kind, *rest = form
        if kind == "is":
            return {o["ann_id"] for o in self.objects if all(o[name] == value for name, value in rest[0].items())}
        if kind == "every":
            return self.meaning(rest[0])
        if kind == "count":
            found = self.meaning(rest[1])
            return found if len(found) == rest[0] else set()
        if kind == "and":
            return set.union(*map(self.meaning, rest))
        if kind == "except":
            return self.meaning(rest[0]) - self.meaning(rest[1])
        found = self.meaning(rest[1])
        if kind == "side":
            return {o for o in found if self.lies(o, rest[0])}
        if kind == "most":
            axis, sign = {"left": (0, 1), "right": (0, -1), "top": (1, 1), "bottom": (1, -1)}[rest[0]]
            return {min(found, key=lambda o: sign * self.centre[o][axis])} if found else set()
        assert kind == "relation"
        (anchor,) = self.meaning(rest[2])
        others = found - {anchor}
        ax, ay = self.centre[anchor]
        if rest[0] == "near":
            return {min(others, key=lambda o: math.dist(self.centre[o], (ax, ay)))} if others else set()
        test = {
            "left": lambda o: self.centre[o][0] < ax,
            "right": lambda o: self.centre[o][0] > ax,
            "top": lambda o: self.centre[o][1] < ay,
            "bottom": lambda o: self.centre[o][1] > ay,
            "front": lambda o: (o, anchor) in self.covers,
            "behind": lambda o: (anchor, o) in self.covers,
        }[rest[0]]
        return {o for o in others if test(o)}

    def lies(self, item, place):
        x, y = self.centre[item]
        if place == "middle":
            return abs(x - SIDE / 2) < 0.18 * SIDE and abs(y - SIDE / 2) < 0.18 * SIDE
        tests = {"left": x < SIDE / 2, "right": x > SIDE / 2, "top": y < SIDE / 2, "bottom": y > SIDE / 2}
        return all(tests[word] for word in place.split())


@pytest.mark.parametrize("split", ["train", "pretrain"])
def test_expressions_mean_their_targets_and_not_by_a_hair(data, split):
    refs, scenes, logic = pool_files(data, split)
    rng = random.Random(0)
    checked = 0
    for ref in refs:
        scene = scenes[str(ref["image_id"])]
        annotated = ref["ann_id"] if isinstance(ref["ann_id"], list) else [ref["ann_id"]]
        expected = set(annotated) - {-1}
        for sentence in ref["sentences"]:
            form = logic[str(sentence["sent_id"])]
            assert World(scene).meaning(form) == expected, sentence["raw"]
            for _ in range(3):  # centres moved by up to 3.2 pixels: everyone would still point at the same objects
                assert World(scene, 0.025, rng).meaning(form) == expected, sentence["raw"]
            checked += 1
        assert data.multi_target or len(expected) == 1
    assert checked > 5 * IMAGES[split]


MEANINGS = {
    "circle": "circle circles disc discs ball balls",
    "ring": "ring rings donut donuts hoop hoops",
    "square": "square squares box boxes block blocks",
    "triangle": "triangle triangles",
    "cross": "cross crosses plus pluses",
    "small": "small little tiny",
    "large": "large big huge",
    "plain": "plain solid",
    "striped": "striped stripy stripes lines",
    "purple": "purple violet",
    **{colour: colour for colour in ("red", "yellow", "green", "blue", "white")},
}
PLACES = {
    "left": {"left"},
    "right": {"right"},
    "top": {"top", "upper", "highest", "up", "above", "higher"},
    "bottom": {"bottom", "lower", "lowest", "down", "below", "under"},
    "middle": {"middle", "center"},
}


def leaves(form):
    """Attribute values and directions in a logical form, with multiplicity."""
    if form[0] == "is":
        return Counter(form[1].values())
    found = Counter()
    if form[0] in ("side", "most", "relation"):
        found.update(word for word in form[1].split() if word in PLACES)
    for part in form[1:]:
        if isinstance(part, list):
            found += leaves(part)
    return found


def test_words_say_what_the_logical_form_says(data):
    refs, _, logic = pool_files(data)
    meaning_of = {word: value for value, words in MEANINGS.items() for word in words.split()}
    meaning_of.update({word: place for place, words in PLACES.items() for word in words})
    for ref in refs:
        for sentence in ref["sentences"]:
            said = Counter(meaning_of[word] for word in sentence["tokens"] if word in meaning_of)
            assert said == leaves(logic[str(sentence["sent_id"])]), sentence["raw"]
            assert sentence["tokens"] == sentence["raw"].lower().replace(",", "").rstrip(".").split()


def test_vocabulary_is_complete_and_survives_a_mirror(data):
    refs, _, _ = pool_files(data)
    words = {word for ref in refs for sentence in ref["sentences"] for word in sentence["tokens"]}
    assert words <= set(vocabulary())
    assert {word for word in vocabulary() if "left" in word or "right" in word} == {"left", "right"}
    located = words & set.union(*PLACES.values(), {"behind", "front", "closest", "nearest", "furthest", "far"})
    assert (located == set()) == (data.name == "refshapes+")


def test_files_are_those_of_the_official_layouts(cache):
    pool = RefShapes(cache_dir=cache, images=IMAGES).pool("val")
    for folder, name in (("refshapes", "refs(unc).p"), ("refshapes+", "refs(unc).p"), ("refshapesg", "refs(umd).p")):
        operations = list(pickletools.genops((pool / folder / name).read_bytes()))
        assert operations[0][1] == 2  # the protocol of the official files
        assert not {op.name for op, _, _ in operations} & {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"}
        ref = read_refs(pool / folder / name)[0]
        fields = "ref_id ann_id image_id category_id split file_name sent_ids sentences"
        assert set(ref) == set(fields.split()) and type(ref["ann_id"]) is int
        assert set(ref["sentences"][0]) == {"sent_id", "sent", "raw", "tokens"}
    general = read(pool / "grefshapes" / "grefs(unc).json")
    assert all(isinstance(ref["ann_id"], list) for ref in general)
    assert any(ref["ann_id"] == [-1] and ref["category_id"] == [-1] for ref in general)


def test_masks_are_visible_regions(cache, capsys):
    data = RefShapes(cache_dir=cache, images=IMAGES)
    pool = data.pool("val")
    coco = COCO(str(pool / "refshapes" / "instances.json"))
    scenes = read(pool / "scenes.json")
    kinds = set()
    for image_id in coco.getImgIds():
        annotations = coco.loadAnns(coco.getAnnIds(image_id))
        assert 3 <= len(annotations) <= 6
        masks = np.stack([coco.annToMask(annotation) for annotation in annotations])
        assert masks.sum(0).max() == 1  # a pixel shows one object only
        described = {item["ann_id"]: item for item in scenes[str(image_id)]["objects"]}
        for mask, annotation in zip(masks, annotations, strict=True):
            kinds.add(type(annotation["segmentation"]))
            assert mask.sum() == annotation["area"]
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            tight = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
            assert annotation["bbox"] == tight == described[annotation["id"]]["box"]
            assert min(tight[2:]) >= 15 and max(tight[2:]) <= 60
            assert described[annotation["id"]]["visible"] >= 0.7
    assert kinds == {list, dict}  # polygons, and RLE for what has a hole


COLOURS = {
    "red": (200, 30, 40),
    "yellow": (235, 210, 40),
    "green": (45, 155, 55),
    "blue": (45, 105, 215),
    "purple": (105, 55, 165),
    "white": (240, 240, 240),
}


def test_pixels_inside_a_mask_have_the_colour_of_the_object(cache):
    data = RefShapes(cache_dir=cache, images=IMAGES)
    pool = data.pool("train")
    coco = COCO(str(pool / "refshapes" / "instances.json"))
    names, reference = list(COLOURS), np.array(list(COLOURS.values()))
    right = total = 0
    for image_id, scene in read(pool / "scenes.json").items():
        file = data.image_path(coco.imgs[int(image_id)]["file_name"])
        with Image.open(file) as image:
            assert image.format == "JPEG" and image.size == (SIDE, SIDE)
            pixels = np.array(image.convert("RGB"), float)
        for item in scene["objects"]:
            inside = pixels[coco.annToMask(coco.anns[item["ann_id"]]) > 0]
            bright = np.percentile(inside, 75, axis=0)  # between stripes and dots
            right += names[np.abs(reference - bright).sum(1).argmin()] == item["colour"]
            total += 1
    assert right >= 0.97 * total


def test_tables(data):
    tables = {split: data.load(split) for split in (*SPLITS, "pretrain")}
    for split, table in tables.items():
        images = IMAGES[split]
        assert table.info["skipped"] == {} and table.has_masks
        assert len(np.unique(table.column("image_id"))) == images
        row = table.row(0)
        assert row.source == "refshapes" and row.split == split and data.image_path(row.image).is_file()
        decoded = coco_mask.decode(list(row.masks)) if row.masks else np.zeros((SIDE, SIDE, 0))
        assert decoded.shape == (SIDE, SIDE, len(row.boxes))
    families = {
        split: {name for row in tables[split] for name in row.categories} for split in ("testA", "testB", "train")
    }
    assert families["testA"] == {"circle", "ring"}
    assert families["testB"] == {"square", "triangle", "cross"}
    assert families["train"] == families["testA"] | families["testB"]


def test_verify_finds_nothing_wrong(data):
    report = verify(data, decode=True)
    assert [part.split for part in report.splits] == list(SPLITS)  # "pretrain" only when asked for
    assert report.ok and report.checked_images == sum(IMAGES[split] for split in SPLITS)


def test_general_expressions_have_no_one_or_several_targets(cache):
    table = GRefShapes(cache_dir=cache, images=IMAGES).load("train")
    counts = Counter(min(len(row.boxes), 2) for row in table)
    shares = {number: count / len(table) for number, count in counts.items()}
    assert 0.2 <= shares[0] <= 0.3 and 0.25 <= shares[2] <= 0.37


def test_targets_are_no_larger_than_other_objects(cache):
    refs, scenes, _ = pool_files(RefShapes(cache_dir=cache, images=IMAGES), "pretrain")
    hits = chance = 0.0
    for ref in refs:
        objects = scenes[str(ref["image_id"])]["objects"]
        largest = max(objects, key=lambda item: item["box"][2] * item["box"][3])
        hits += largest["ann_id"] == ref["ann_id"]
        chance += 1 / len(objects)
    assert hits < 1.6 * chance < 0.5 * len(refs)


def test_annotations_never_change(cache):
    """One hash over everything annotated in the small build. It changes only together with build.VERSION."""
    pool = RefShapes(cache_dir=cache, images=IMAGES).pool("val")
    instances = read(pool / "refshapes" / "instances.json")
    content = [read(pool / "scenes.json")]
    for annotation in instances["annotations"]:
        shape, size = annotation["segmentation"], [SIDE, SIDE]
        rle = coco_mask.merge(coco_mask.frPyObjects(shape, *size)) if isinstance(shape, list) else shape
        counts = rle["counts"]
        content.append([annotation["id"], annotation["bbox"], counts if isinstance(counts, str) else counts.decode()])
    for kind in FLAVOURS:
        refs, _, logic = pool_files(kind(cache_dir=cache, images=IMAGES))
        content.append([refs, logic])
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    assert build.VERSION == 6
    assert digest == "69f7b49da8b936db980cb1556cf8ae34fcc37d7abbbcc90560899fd7ba1ac807"


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_files_do_not_depend_on_the_number_of_processes(tmp_path):
    options = Options.of(seed=3, images={"train": 5, "val": 2, "testA": 2, "testB": 2})
    build.generate(tmp_path / "one", options, "base", processes=1)
    build.generate(tmp_path / "three", options, "base", processes=3)
    assert tree(tmp_path / "one") == tree(tmp_path / "three")
    other = Options.of(seed=4, images={"train": 5, "val": 2, "testA": 2, "testB": 2})
    build.generate(tmp_path / "other", other, "base", processes=2)
    assert tree(tmp_path / "one") != tree(tmp_path / "other")


def test_no_scene_is_in_two_splits(cache):
    data = RefShapes(cache_dir=cache, images=IMAGES)
    scenes = {**read(data.pool("train") / "scenes.json"), **read(data.pool("pretrain") / "scenes.json")}
    prints = Counter(
        tuple(sorted((o["shape"], o["colour"], o["size"], o["texture"], *o["box"]) for o in scene["objects"]))
        for scene in scenes.values()
    )
    assert len(scenes) == sum(IMAGES.values()) == len(prints)
    assert Counter(scene["split"] for scene in scenes.values()) == IMAGES


def test_pretraining_scenes_are_made_only_on_demand(tmp_path):
    data = RefShapes(cache_dir=tmp_path, images={"train": 3, "val": 2, "testA": 2, "testB": 2, "pretrain": 2})
    assert len(data.load("val"))
    assert "pretrain" in data.splits and not (data.data_root / "pretrain").exists()


def test_interrupted_generation_leaves_nothing(tmp_path, monkeypatch):
    options = Options.of(images={"train": 3, "val": 2, "testA": 2, "testB": 2})

    def interrupted(folder, *_):
        folder.mkdir()
        (folder / "half").write_text("half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "generate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build.ensure(tmp_path, options, "base")
    (tmp_path / options.folder / ".base-killed").mkdir()  # what a process leaves that was killed
    pool = build.ensure(tmp_path, options, "base")
    assert [path.name for path in pool.parent.iterdir() if path.is_dir()] == ["base"]
    assert not (pool / "half").exists()


def test_two_processes_at_once(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from vgbench.datasets.refshapes import build\n"
        "options = build.Options.of(images={'train': 3, 'val': 2, 'testA': 2, 'testB': 2})\n"
        "print(build.ensure(pathlib.Path(sys.argv[1]), options, 'base'))\n"  # no __main__ guard: none is needed
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    command = [sys.executable, str(script), str(tmp_path / "cache")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) for _ in range(2)]
    answers = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert answers[0] == answers[1] and len(tree(Path(answers[0].strip()) / "images")) == 9


def test_other_sizes(tmp_path):
    record, picture = build.make_record(Options.of(side=200), 1, "train", 0)
    (tmp_path / "image.jpg").write_bytes(picture)
    with Image.open(tmp_path / "image.jpg") as image:
        assert image.size == (200, 200) == (record["image"]["width"], record["image"]["height"])
    assert max(max(item["box"][2:]) for item in record["scene"]["objects"]) > 40


@pytest.mark.parametrize("options", [{"images": {"test": 5}}, {"images": {"val": 0}}, {"side": 8}])
def test_impossible_options_are_named(options):
    with pytest.raises(UserError, match=next(iter(options))):
        RefShapes(**options)


def test_registered():
    names = list(Registry("vgbench.datasets", "dataset"))
    assert {kind.name for kind in FLAVOURS} <= set(names)


@pytest.mark.slow
def test_default_build_has_the_stated_counts(tmp_path):
    for kind in FLAVOURS:
        report = verify(kind(cache_dir=tmp_path))
        assert report.ok, report.lines()
