"""Image files are found under the names and in the places that are usual."""

import pytest

from tests.data.samples import image_name, open_set, put_images, write_refer
from vgbench.datasets.refcoco import RefCOCO


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("images/mscoco/train2014", image_name),
        ("mscoco/images/train2014", image_name),
        ("images/train2017", lambda image_id: f"{image_id:012d}.jpg"),
    ],
)
def test_images_are_found_under_either_name(tmp_path, folder, name):
    write_refer(tmp_path)
    put_images(tmp_path / folder, name)
    data = open_set(RefCOCO, tmp_path / "refcoco")
    row = data.load("train").row(0)
    assert data.image_path(row.image) == (tmp_path / folder).resolve() / name(101)


def test_image_template(tmp_path):
    write_refer(tmp_path)
    put_images(tmp_path / "pictures", lambda image_id: f"p{image_id}.jpg")
    data = open_set(RefCOCO, tmp_path, image_root=tmp_path / "pictures", image_template="p{:d}.jpg")
    assert data.image_path(image_name(102)) == tmp_path / "pictures" / "p102.jpg"
    assert not open_set(RefCOCO, tmp_path, image_root=tmp_path / "pictures").image_path(image_name(102)).exists()
