"""TransVG's lists: the form of their boxes, sizes from images, files with code."""

import pytest
import torch

from tests.data.samples import image_name, open_set, put_images, write_transvg
from vgbench.core.errors import UserError
from vgbench.datasets.mixed import Flickr30k, ReferIt
from vgbench.datasets.refcoco import RefCOCO


def test_transvg_boxes_are_corners_for_referit_and_flickr(tmp_path):
    put_images(tmp_path / "saiaprtc12", lambda i: f"{i}.jpg")
    put_images(tmp_path / "flickr30k", lambda i: f"{i}.jpg")
    for name in ("referit", "flickr"):
        (tmp_path / name).mkdir()
    torch.save([("101.jpg", "101_1.pth", [5, 6, 20, 30], "a sky", [])], tmp_path / "referit" / "referit_val.pth")
    torch.save([("101.jpg", [5, 6, 20, 30], "a sky")], tmp_path / "flickr" / "flickr_val.pth")
    for kind in (ReferIt, Flickr30k):
        row = open_set(kind, tmp_path).load("val").row(0)
        assert (row.image_id, row.boxes.tolist(), row.expression) == (101, [[5, 6, 20, 30]], "a sky")


def test_missing_image_of_a_layout_without_sizes(tmp_path):
    write_transvg(tmp_path)
    name = tmp_path / "images" / "train2014" / image_name(101)
    name.rename(tmp_path / "away.jpg")
    with pytest.raises(UserError, match=f"image file is missing.*{image_name(101)}"):
        open_set(RefCOCO, tmp_path).load("train")
    name.write_bytes(b"")  # a copy that was broken off
    with pytest.raises(UserError, match="image file that is no image"):
        open_set(RefCOCO, tmp_path).load("train")
    (tmp_path / "away.jpg").rename(name)
    assert len(open_set(RefCOCO, tmp_path).load("train")) == 3  # the failure was not cached


def test_torch_file_with_code_is_refused(tmp_path):
    marker = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return (eval, (f"open({str(marker)!r}, 'w')",))

    (tmp_path / "unc").mkdir()
    torch.save([Hostile()], tmp_path / "unc" / "unc_train.pth")
    with pytest.raises(UserError, match="eval, which could run code"):
        open_set(RefCOCO, tmp_path).load("train")
    (tmp_path / "unc" / "unc_train.pth").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(UserError, match="damaged"):
        open_set(RefCOCO, tmp_path).load("train")
    assert not marker.exists()
