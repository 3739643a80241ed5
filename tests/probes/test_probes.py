"""Every probe on hand-made scenes: what it asks, what it leaves out and why, what its answers count."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from tests.probes.scenes import HEIGHT, WIDTH, annotations, boxes, image, questions, texts
from vgbench.core.errors import UserError
from vgbench.core.registry import probes
from vgbench.data import rle
from vgbench.probes.catalog import USUAL, parse, parse_all, probe_class
from vgbench.probes.names import split_and_probe
from vgbench.probes.wording import drop_words, exchange_sides, words

DOGS = (("a", 1, "the left dog", [11]), ("b", 1, "Right Dog", [12]), ("c", 1, "dog in the middle?", [13]))


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("the left dog", "the right dog"),
        ("LEFT dog, not the Right one", "RIGHT dog, not the Left one"),
        ("leftmost cat on the lefthand side", "rightmost cat on the righthand side"),
        ("upright leftovers", "upright leftovers"),  # neither is a side
        ("man at lhs", "man at rhs"),
    ],
)
def test_sides_are_exchanged_as_words(text: str, mirrored: str) -> None:
    assert exchange_sides(text) == mirrored
    assert exchange_sides(mirrored) == text
    assert drop_words("the red, big dog.", {"red", "big"}.__contains__) == "the, dog."
    assert words("The dog's 2 bowls") == ["the", "dog's", "bowls"]


def test_mirror_turns_words_boxes_masks_and_pixels() -> None:
    data = annotations(
        *DOGS,
        ("writing", 1, "dog with 23 on its shirt", [11]),
        ("sense", 1, "dog right behind the cat", [12]),
        ("ordinal", 1, "second dog", [12]),
        ("counted", 1, "second dog from left", [12]),
        ("short", 1, "dog on r", [12]),
        ("foreign", 1, "links der Hund ß", [11]),
    )
    asked = questions("mirror", data)
    assert texts(asked) == {
        "a": "the right dog",
        "b": "Left Dog",
        "c": "dog in the middle?",
        "counted": "second dog from right",
    }
    assert boxes(asked)["a"] == [[78, 10, 98, 30]]
    assert rle.decode(asked.table.row(0).masks[0])[:, 78:98].any(1).sum() == 20
    assert sorted(asked.left_out.values()) == [1, 1, 1, 1, 1]
    shown = asked.picture(0, torch.from_numpy(image()).permute(2, 0, 1))
    assert shown.shape == (3, HEIGHT, WIDTH)
    assert shown[0, 0].tolist() == list(reversed(range(WIDTH)))
    assert asked.carried(np.array([[0.0, 0, 10, 10]] * 4), np.ones(4, dtype=bool))[0].tolist() == [90, 0, 100, 10]
    again = pickle.loads(pickle.dumps(asked))  # loader processes get it so
    assert torch.equal(again.picture(0, torch.from_numpy(image()).permute(2, 0, 1)), shown)
    assert asked.note.startswith("val [mirror]: 4 of 9 expressions asked; left out: 1 ")


def test_swap_asks_only_what_geometry_proves() -> None:
    data = annotations(
        *DOGS[:2],
        ("colour", 1, "red dog on the far left", [11]),
        ("anything", 1, "left thing", [11]),
        ("relation", 1, "dog left of the cat", [11]),
        ("unknown", 1, "left sleepy dog", [11]),
        ("twice", 1, "left dog, not right", [11]),
        ("none", 1, "left cat", [13]),
        ("end", 1, "right dog", [11]),  # not the right one at all
    )
    asked = questions("swap", data)
    assert texts(asked) == {"a": "the right dog", "b": "Left Dog", "colour": "red dog on the far right"}
    assert asked.left_out["several objects lie in the other half"] == 1  # "left thing": the cat is in the middle
    moved = boxes(asked)
    assert moved["a"] == moved["colour"] == [[70, 10, 95, 40]]
    assert moved["b"] == [[2, 10, 22, 30]]
    assert asked.table.row(0).ann_ids == (12,)
    assert rle.areas(list(asked.table.row(0).masks)).tolist() == [25 * 30]
    assert asked.left_out["a side of another object"] == 1
    assert asked.left_out["words beside the side whose meaning is not annotated"] == 1
    assert asked.left_out["not exactly one word says left or right"] == 1
    assert asked.left_out["no other object answers to the words"] == 1
    assert asked.left_out["the target is not clearly at the end that is named"] == 1


@pytest.mark.parametrize(
    ("spec", "text", "changed"),
    [
        ("words:case", "the left dog", "THE LEFT DOG"),
        ("words:case", "DOG", "dog"),
        ("words:punctuation", "left dog.", "left dog"),
        ("words:spelling", "grey dog near the Donut", "gray dog near the Doughnut"),
        ("words:spelling", "red dog", None),
        ("words:adjectives", "the small red dog", "the red small dog"),
        ("words:adjectives", "Small red dog", "Red small dog"),
        ("words:adjectives", "small big dog", None),
        ("words:no_nouns", "the red dog", "the red"),
        ("words:no_nouns", "dogs", None),
        ("words:no_attributes", "the small red dog", "the dog"),
        ("words:no_places", "dog on the left", "dog on the"),
        ("words:typos", "red", None),
    ],
)
def test_words(spec: str, text: str, changed: str | None) -> None:
    asked = questions(spec, annotations(("a", 1, text, [11])))
    assert texts(asked) == ({} if changed is None else {"a": changed})
    assert sum(asked.left_out.values()) == (changed is None)


def test_random_changes_keep_what_matters_and_depend_on_the_seed_alone() -> None:
    rows = [(str(number), 1, "the leftmost spotted dog over there", [11]) for number in range(30)]
    asked = questions("words:typos", annotations(*rows))
    again = questions("words:typos", annotations(*reversed(rows)))
    assert texts(asked) == texts(again)  # whatever the order
    assert texts(asked) != texts(questions("words:typos", annotations(*rows), seed=1))
    assert len(set(texts(asked).values())) > 5
    for text in texts(asked).values():
        assert "leftmost" in text or sorted("leftmost") != sorted(text.split()[1])
        assert abs(len(text) - len(rows[0][2])) <= 1
    assert all(
        "the leftmost spotted dog" in text for text in texts(questions("words:filler", annotations(*rows))).values()
    )
    shuffled = questions("words:shuffled", annotations(*DOGS))
    assert sorted(texts(shuffled).values()) == sorted(row[2] for row in DOGS)
    assert all(texts(shuffled)[row[0]] != row[2] for row in DOGS)
    order = texts(questions("words:order", annotations(*rows)))
    assert {tuple(sorted(text.split())) for text in order.values()} == {tuple(sorted(rows[0][2].split()))}


def test_nothing_names_a_category_that_the_image_lacks() -> None:
    data = annotations(
        ("a", 1, "the left dog", [11]),
        ("b", 2, "white horse", [21]),
        ("c", 2, "the one", [21]),  # names nothing
        ("d", 2, "cat", [22]),  # there is one in the other image, too
        ("e", 2, "horse and cat", [21]),  # joined
    )
    asked = questions("nothing", data)
    assert texts(asked) == {"a": "white horse", **dict.fromkeys("bcde", "the left dog")}
    assert all(row.no_target and not row.masks and not row.categories for row in asked.table)


def test_one_word_is_changed_to_what_no_object_is() -> None:
    data = annotations(
        ("colour", 1, "the blue one", [13]),  # red is there, white and green are not
        ("noun", 2, "horse", [21]),  # dog is not in image 2
        ("joined", 1, "the cat and no dog", [13]),
        ("unknown", 1, "the sleepy one", [13]),
    )
    asked = questions("one_word", data)
    assert texts(asked)["colour"] in ("the white one", "the green one")
    assert texts(asked)["noun"] == "dog"
    assert dict(asked.left_out) == {
        "parts joined or excluded: something may be left": 1,
        "no word whose meaning is annotated": 1,
    }
    data.scenes[1][0].attributes.pop("colour")  # type: ignore[index, attr-defined]
    assert "colour" not in texts(questions("one_word", data))  # not annotated of every object: no proof


def test_images_are_corrupted_by_severity_and_boxes_follow_a_crop() -> None:
    data = annotations(("a", 2, "white horse", [21]), ("b", 2, "horse on the left", [21]))
    fields = (np.arange(HEIGHT)[:, None] // 7 + np.arange(WIDTH) // 7) % 2 * 200
    picture = torch.from_numpy(fields.astype(np.uint8)).expand(3, -1, -1)
    for kind in ("gaussian_noise", "gaussian_blur", "jpeg_compression", "pixelate"):
        change = []
        for level in (1, 3, 5):
            asked = questions(f"image:{kind}@{level}", data)
            shown = asked.picture(0, picture)
            assert shown.shape == picture.shape and shown.dtype == torch.uint8
            assert torch.equal(shown, asked.picture(0, picture))
            change.append((shown.float() - picture.float()).abs().mean().item())
        assert 0 < change[0] < change[1] < change[2], kind
        assert asked.hash != asked.table.hash
    crop = questions("image:crop@5", data)
    assert list(texts(crop)) == ["a"]  # the other one has a word of place
    assert boxes(crop)["a"] == [[0, 0, 40, 40]]  # around both objects: x from 10 to 90, y from 10 to 50
    row = crop.table.row(0)
    assert (row.width, row.height) == (80, 40)
    assert rle.decode(row.masks[0]).shape == (40, 80)
    shown = crop.picture(0, torch.from_numpy(image()).permute(2, 0, 1))
    assert shown.shape == (3, 40, 80) and shown[0, 0, 0] == 10 and shown[1, 0, 0] == 10
    assert crop.carried(np.array([[10.0, 10, 50, 50]]), np.ones(1, bool)).tolist() == [[0, 0, 40, 40]]


def test_corruptions_of_the_library_come_from_the_seed() -> None:
    pytest.importorskip("imagecorruptions")
    data = annotations(("a", 2, "white horse", [21]))
    picture = torch.from_numpy(image()).permute(2, 0, 1)
    state = np.random.get_state()[1].tolist()  # type: ignore[union-attr]
    for kind in ("fog", "snow", "motion_blur"):
        asked = questions(f"image:{kind}@3", data)
        assert torch.equal(asked.picture(0, picture), asked.picture(0, picture))
    assert np.random.get_state()[1].tolist() == state  # type: ignore[union-attr]


def test_patches_cover_the_target_or_the_others() -> None:
    data = annotations(("a", 1, "the left dog", [11]), ("b", 1, "cat", [13]), ("c", 1, "second dog", [12]))
    picture = torch.from_numpy(image()).permute(2, 0, 1)
    for level, share in enumerate((0.2, 0.4, 0.6, 0.8, 1.0), 1):
        shown = questions(f"cover_target@{level}", data).picture(0, picture)
        changed = (shown != picture).any(0)
        assert changed[10:30, 2:22].sum() == changed.sum()
        assert changed.sum() >= share * 20 * 20 - 20  # columns and rows whose colour is the mean's look unchanged
        assert changed.sum() <= share * 20 * 20
    others = questions("cover_others", data)
    assert dict(others.left_out) == {
        "no other object of the category": 1,
        "an ordinal that counts what would be covered": 1,
    }
    changed = (others.picture(0, picture) != picture).any(0)
    assert changed[10:40, 70:95].float().mean() > 0.9
    assert not changed[10:30, 2:22].any()


def test_without_all_objects_nothing_is_proved() -> None:
    data = annotations(*DOGS, complete=False)
    for spec in ("swap", "nothing", "one_word", "distractors", "cover_others"):
        asked = questions(spec, data)
        assert len(asked.rows) == 0 and len(asked.table) == 0
    assert any("eval.stress_objects=FILE" in reason for reason in asked.left_out)
    assert len(questions("mirror", data).rows) == 3  # needs no proof by objects


def test_probes_are_found_by_name() -> None:
    assert [probe.spec for probe in parse("image:pixelate")] == [f"image:pixelate@{level}" for level in range(1, 6)]
    assert {probe.kind for probe in parse("words")} == set(probe_class("words").kinds)
    assert len(parse_all(["all", "mirror"])) == len(parse_all(USUAL))
    assert split_and_probe("val [words:typos]") == ("val", "words:typos")
    assert split_and_probe("val") == ("val", "")
    for name in probes:
        cls = probe_class(name)
        assert cls.name == name and len(cls.shows) > 40 and len(cls.cannot) > 40
    for wrong in ("miror", "words:typo", "image:pixelate@9", "mirror@1", "image:pixelate@", "a b"):
        with pytest.raises(UserError, match="probe"):
            parse(wrong)
