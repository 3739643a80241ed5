"""Visual Genome's regions."""

from tests.data.samples import dump, open_set, put_images
from vgbench.datasets.vg import VisualGenome, evaluation_images


def test_visual_genome_regions(tmp_path):
    region = {"region_id": 1382, "x": -2, "y": 3, "width": 20, "height": 10, "phrase": "the clock", "image_id": 1}
    dump(
        tmp_path / "region_descriptions.json",
        [{"id": 1, "regions": [region]}, {"id": 2, "regions": [{**region, "region_id": 5}]}],
    )
    size = {"width": 64, "height": 48, "url": "x"}
    leaked = min(evaluation_images())
    dump(
        tmp_path / "image_data.json",
        [{"image_id": 1, "coco_id": None, **size}, {"image_id": 2, "coco_id": leaked, **size}],
    )
    put_images(tmp_path / "VG_100K_2", lambda i: f"{i}.jpg", {1: (64, 48)})
    data = open_set(VisualGenome, tmp_path)
    (row,) = table = data.load("train")
    assert (row.expression, row.boxes.tolist(), row.sent_id) == ("the clock", [[-2, 3, 18, 13]], 1382)
    assert table.info["excluded_images"] == 1
    assert data.image_path(row.image) == tmp_path / "VG_100K_2" / "1.jpg"
    assert len(open_set(VisualGenome, tmp_path, exclude_eval_images=False).load("train")) == 2
