"""Pictures of every depth and colour model mean what they show; only a picture without annotations is turned."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from vgbench.data.checks import BadSample
from vgbench.data.images import decode_image
from vgbench.data.pixels import as_rgb, as_shown, eight_bits

RAMP = np.linspace(0, 1, 52).repeat(4).reshape(16, 13)  # brightness in row-major order, four pixels each
SCENE = np.zeros((40, 60, 3), np.uint8)
SCENE[:20, :20] = (255, 0, 0)


def written(image, kind, **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    content.seek(0)
    return Image.open(content)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ((RAMP * 65_535).astype(np.uint16), "PNG"),
        ((RAMP * 65_535).astype(np.uint16), "TIFF"),
        ((RAMP * 65_535).astype(np.int32), "TIFF"),
        (RAMP.astype(np.float32), "TIFF"),
        ((RAMP * 255).astype(np.float32), "TIFF"),
        ((RAMP * 2e6 - 1e6).astype(np.float32), "TIFF"),
        ((RAMP * 255).astype(np.uint8), "PNG"),
    ],
)
def test_deep_pictures_are_scaled_not_clipped(values, kind):
    shown = np.asarray(as_rgb(written(Image.fromarray(values), kind))).astype(int)
    assert np.abs(shown - (RAMP * 255)[..., None]).max() <= 1


def test_a_deep_picture_and_its_eight_bit_copy_are_decoded_alike(tmp_path):
    Image.fromarray((RAMP * 65_535).astype(np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray((RAMP * 255).astype(np.uint8)).save(tmp_path / "flat.png")
    deep, flat = (decode_image(tmp_path / name) for name in ("deep.png", "flat.png"))
    assert deep.shape == flat.shape == (3, 16, 13)
    assert (deep.int() - flat.int()).abs().max() <= 1


def test_numbers_that_are_none_are_black():
    assert eight_bits(np.array([[np.nan, np.inf, 0.5, 1.0]])).tolist() == [[0, 0, 128, 255]]
    assert eight_bits(np.zeros((2, 2), np.uint16)).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_has_the_colours_of_the_scene(kind):
    scene = Image.fromarray(SCENE)
    for read in (as_rgb, as_shown):
        shown = np.asarray(read(written(scene.convert("CMYK"), kind))).astype(int)
        assert np.abs(shown[4:12, 4:12] - (255, 0, 0)).max() < 12
        assert np.abs(shown[28:, 28:]).max() < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("tag", range(2, 9))
def test_a_photograph_is_turned_where_nothing_refers_to_its_pixels(kind, tag, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = tag
    path = tmp_path / "photo"
    Image.fromarray(SCENE).save(path, kind, exif=exif)
    stored = decode_image(path)
    assert stored.shape == (3, 40, 60)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    turned = decode_image(path, upright=True).permute(1, 2, 0).numpy()
    assert turned.shape == ((40, 60, 3) if tag < 5 else (60, 40, 3))
    assert (turned == expected).all()
    assert not np.array_equal(turned, stored.permute(1, 2, 0).numpy())


def test_transparent_pictures_lie_on_white_paper_where_they_are_shown():
    clear = Image.fromarray(np.dstack([SCENE, np.full((40, 60), 255, np.uint8)]))
    clear.putalpha(Image.fromarray(np.where(np.arange(60) < 30, 255, 0).astype(np.uint8)[None].repeat(40, 0)))
    for image in (clear, written(clear, "PNG"), written(clear.convert("P"), "PNG", transparency=0)):
        assert as_shown(image).mode == "RGB"
    shown = np.asarray(as_shown(clear))
    assert (shown[:, 30:] == 255).all()
    assert (shown[:, :30] == SCENE[:, :30]).all()
    assert (np.asarray(as_rgb(clear)) == SCENE).all()


def test_a_damaged_tag_turns_nothing(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(SCENE).save(path, exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert decode_image(path, upright=True).shape == (3, 40, 60)


def test_pictures_that_are_too_large_or_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes may stand for any number of pixels, and EPS for a program that Pillow runs in Ghostscript."""
    file = tmp_path / "large.png"
    Image.new("1", (10_000, 9_000)).save(file)
    assert file.stat().st_size < 20_000
    with pytest.raises(BadSample, match="more than 89,478,485 pixels; VGBENCH_MAX_PIXELS=NUMBER allows more"):
        decode_image(file)
    monkeypatch.setenv("VGBENCH_MAX_PIXELS", "90000000")
    assert decode_image(file).shape == (3, 9000, 10_000)
    monkeypatch.setenv("VGBENCH_MAX_PIXELS", "100")
    Image.new("RGB", (10, 10)).save(file)
    assert decode_image(file).shape == (3, 10, 10)
    Image.new("RGB", (11, 10)).save(file)
    with pytest.raises(BadSample, match="more than 100 pixels"):
        decode_image(file)
    (tmp_path / "program.jpg").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(EXECUTED) (w) file closefile\n%%EOF\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadSample, match="cannot identify image file"):
        decode_image(tmp_path / "program.jpg")
    assert not (tmp_path / "EXECUTED").exists()
