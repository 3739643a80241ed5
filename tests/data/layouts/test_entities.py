"""The original release of Flickr30k Entities."""

import pytest

from tests.data.samples import open_set
from vgbench.core.errors import UserError
from vgbench.datasets.mixed import Flickr30k


def write_entities(root):
    for folder in ("Sentences", "Annotations"):
        (root / "flickr30k_entities" / folder).mkdir(parents=True)
    (root / "flickr30k_entities" / "val.txt").write_text("36979\n")
    (root / "flickr30k_entities" / "Sentences" / "36979.txt").write_text(
        "[/EN#7/animals Two dogs] chase [/EN#8/other a red ball] in [/EN#9/scene a park] .\n"
        "[/EN#8/other The toy] rolls .\n"
    )
    box = (
        "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
    )
    (root / "flickr30k_entities" / "Annotations" / "36979.xml").write_text(
        "<annotation><filename>36979.jpg</filename><size><width>64</width><height>48</height><depth>3</depth></size>"
        + box.format(7, 6, 6, 16, 16)  # counted from 1
        + box.format(7, 31, 9, 41, 21)
        + box.format(8, 51, 41, 55, 45)
        + "<object><name>9</name><scene>1</scene><nobndbox>0</nobndbox></object></annotation>"
    )
    return root


def test_original_flickr_entities(tmp_path):
    data = open_set(Flickr30k, write_entities(tmp_path))
    rows = list(data.load("val"))
    assert [(row.expression, row.boxes.tolist()) for row in rows] == [
        ("Two dogs", [[5, 5, 40, 20]]),
        ("a red ball", [[50, 40, 54, 44]]),
        ("The toy", [[50, 40, 54, 44]]),
    ]
    assert rows[1].group == rows[2].group != rows[0].group and rows[0].image == "36979.jpg"
    path = tmp_path / "flickr30k_entities" / "Sentences" / "36979.txt"
    path.write_text("[/EN#7/animals Dogs]\n")
    assert [row.expression for row in data.load("val")] == ["Dogs"]  # the cache follows files in folders too
    (tmp_path / "flickr30k_entities" / "Annotations" / "36979.xml").write_text("<annotation><size>")
    with pytest.raises(UserError, match="not valid XML"):
        data.load("val")
