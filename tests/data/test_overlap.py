"""Images that a training set shares with an evaluation split."""

import pytest

from tests.data.samples import REAL, table_of
from vgbench.data.leakage import Leakage, leakage, without_images
from vgbench.datasets.refcoco import RefCOCO


def test_leakage_counts_images_across_sources():
    evaluation = table_of([(1, "a"), (2, "b"), (2, "c"), (3, "d")])
    train = table_of([(2, "x"), (2, "y"), (9, "z")])
    assert leakage(train, evaluation) == Leakage(images=1, evaluation_images=3, training_expressions=2)
    genome = table_of([(2, "x"), (50, "y"), (51, "z")], source="vg")
    assert leakage(genome, evaluation).images == 0  # Visual Genome counts its images on its own
    assert leakage(genome, evaluation, {("vg", 50): ("coco", 3), ("vg", 2): ("coco", 77)}) == Leakage(1, 3, 1)
    clean = without_images(train, [evaluation])
    assert [row.expression for row in clean] == ["z"] and clean.info["excluded_images"] == 1
    assert leakage(clean, evaluation).images == 0


@pytest.mark.skipif(not REAL.is_dir(), reason="no real annotation files here")
def test_real_leakage_between_refcocog_and_refcoco(tmp_path):
    names = (REAL / "pseudoq_train_images" / "gref_umd_train_imagelist.txt").read_text().split()
    train = table_of([(int(number), "x") for name in names if (number := name.split("_")[-1].partition(".")[0])])
    data = RefCOCO(REAL / "minigpt4_refcoco_eval", cache_dir=tmp_path)
    assert [leakage(train, data.load(split)).images for split in ("val", "testA", "testB")] == [918, 454, 488]
