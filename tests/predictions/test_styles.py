"""What each family writes: hand-made answers, and boxes computed by hand or by the family's own code."""

import time
from types import SimpleNamespace

import pytest

from vgbench.core.errors import UserError
from vgbench.core.registry import styles as added_styles
from vgbench.predictions.coordinates import Coordinates
from vgbench.predictions.styles import style, style_classes
from vgbench.predictions.styles.base import AnswerStyle
from vgbench.types import Geometry

WIDE, TALL = (640, 480), (300, 400)  # width, height
SEEN = (644, 476)  # what a processor makes of 640 x 480 in multiples of 28

# style, answer, size of the image, boxes in its pixels
CASES = [
    ("qwen-vl", "<ref>cup</ref><box>(250,500),(750,1000)</box>", WIDE, [[160, 240, 480, 480]]),
    (
        "qwen-vl",
        "<box>(0,0),(500,500)</box><box>(500,500),(1000,1000)</box>",
        WIDE,
        [[0, 0, 320, 240], [320, 240, 640, 480]],
    ),
    ("qwen-vl", "(250,500),(750,1000)", WIDE, [[160, 240, 480, 480]]),  # marks skipped as special tokens
    (
        "qwen2-vl",
        "<|object_ref_start|>cup<|object_ref_end|><|box_start|>(250,500),(750,1000)<|box_end|><|im_end|>",
        WIDE,
        [[160, 240, 480, 480]],
    ),
    ("qwen2-vl", "<|box_start|>(250,500),(750,1000)", WIDE, [[160, 240, 480, 480]]),  # cut before the end mark
    (
        "qwen2.5-vl",
        '```json\n[\n\t{"bbox_2d": [161, 119, 322, 357], "label": "cup 7"}\n]\n```',
        WIDE,
        [[160, 120, 320, 360]],
    ),
    ("qwen2.5-vl", "The cup is here: {'bbox_2d': [161, 119, 322, 357]}. Two more: 1, 2.", WIDE, [[160, 120, 320, 360]]),
    (
        "qwen2.5-vl",
        '[{"bbox_2d": [0, 0, 322, 238], "label": "a"}, {"bbox_2d": [322, 238, 644, 476], "lab',
        WIDE,
        [[0, 0, 320, 240], [320, 240, 640, 480]],
    ),
    (
        "qwen2.5-vl",
        '{"bbox_2d": [[0, 0, 322, 238], [322, 238, 644, 476]]}',
        WIDE,
        [[0, 0, 320, 240], [320, 240, 640, 480]],
    ),
    ("qwen3-vl", '```json\n[{"bbox_2d": [250, 500, 750, 1000], "label": "cup"}]\n```', WIDE, [[160, 240, 480, 480]]),
    (
        "qwen3-vl",
        '<think>maybe {"bbox_2d": [1, 1, 9, 9]}</think>{"bbox_2d": [250, 500, 750, 1000]}',
        WIDE,
        [[160, 240, 480, 480]],
    ),
    ("internvl", "<ref>player 23</ref><box>[[250, 500, 750, 1000]]</box>", WIDE, [[160, 240, 480, 480]]),
    (
        "internvl",
        "<ref>men</ref><box>[[0, 0, 500, 500], [500, 500, 1000, 1000]]</box>",
        WIDE,
        [[0, 0, 320, 240], [320, 240, 640, 480]],
    ),
    ("internvl", "player 23[[250, 500, 750, 1000]]", WIDE, [[160, 240, 480, 480]]),
    # 640 x 480 padded to 640 x 640: 80 pixels above; half of 999 is 319.68 of 640
    ("asmv2", "<ref>cup</ref><box>[[0, 333, 999, 666]]</box>", WIDE, [[0, 640 / 3 - 80, 640, 1280 / 3 - 80]]),
    ("shikra", "The cup is at [0.250,0.250,0.750,0.500].", WIDE, [[160, 80, 480, 240]]),
    ("shikra", "[0.25,0.25,0.75,0.5;0.5,0.5,0.75,0.75]", TALL, [[50, 100, 250, 200], [150, 200, 250, 300]]),
    ("llava", "[0.25, 0.25, 0.75, 0.5]", TALL, [[50, 100, 250, 200]]),  # 300 x 400: 50 pixels left
    ("ferret", "player 23 [250, 500, 750, 1000].", WIDE, [[160, 240, 480, 480]]),
    ("cogvlm", "[[250,500,750,999]]", (1000, 1000), [[250, 500, 750, 999]]),
    ("cogvlm", "[[000,000,500,500;500,500,750,750]]", (1000, 1000), [[0, 0, 500, 500], [500, 500, 750, 750]]),
    (
        "deepseek-vl2",
        "<|ref|>cup<|/ref|><|det|>[[0, 333, 999, 666]]<|/det|><｜end▁of▁sentence｜>",
        WIDE,
        [[0, 160, 640, 320]],
    ),
    (
        "deepseek-vl2",
        "<|det|>[[0, 0, 333, 333], [666, 666, 999, 999]]<|/det|>",
        (300, 300),
        [[0, 0, 100, 100], [200, 200, 300, 300]],
    ),
    (
        "glm-4v",
        "<think>[1, 2, 3, 4]?</think>The answer is <|begin_of_box|>[[250,500,750,1000]]<|end_of_box|>.",
        WIDE,
        [[160, 240, 480, 480]],
    ),
    ("glm-4v", "<|begin_of_box|>(250,500,750,1000)<|end_of_box|>", WIDE, [[160, 240, 480, 480]]),
    (
        "glm-4v",
        "<|begin_of_box|>[0,0,500,500]<|end_of_box|> and <|begin_of_box|>[500,500,1000,1000]<|end_of_box|>",
        WIDE,
        [[0, 0, 320, 240], [320, 240, 640, 480]],
    ),
    ("gemini", '```json\n[{"box_2d": [500, 250, 1000, 750], "label": "cup 1"}]\n```', WIDE, [[160, 240, 480, 480]]),
    ("gemini", "[500, 250, 1000, 750]", WIDE, [[160, 240, 480, 480]]),  # y first all the same
    ("minicpm-v", "<ref>cup</ref><box>250 500 750 1000</box>", WIDE, [[160, 240, 480, 480]]),
    (
        "moondream",
        '{"objects": [{"x_min": 0.25, "y_min": 0.5, "x_max": 0.75, "y_max": 1.0}]}',
        WIDE,
        [[160, 240, 480, 480]],
    ),
    ("paligemma", "<loc0512><loc0256><loc1023><loc0768> cup", WIDE, [[160, 240, 480, 1023 / 1024 * 480]]),
    (
        "paligemma",
        "<loc0000><loc0000><loc0512><loc0512> cup ; <loc0512><loc0512><loc0768><loc0768> cup",
        WIDE,
        [[0, 0, 320, 240], [320, 240, 480, 360]],
    ),
    ("paligemma", "<loc0512><loc0256><loc0768><loc0512><seg001><seg044> cup", WIDE, [[160, 240, 320, 360]]),
    ("minigpt-v2", "<p>cup</p> {<25><50><75><100>}", WIDE, [[160, 240, 480, 480]]),
    ("minigpt-v2", "{<0><0><50><50>}<delim>{<50><50><100><100>}", WIDE, [[0, 0, 320, 240], [320, 240, 640, 480]]),
    ("ofa", "<bin_0> <bin_333> <bin_999> <bin_666>", WIDE, [[0, 160, 640, 320]]),
]


@pytest.mark.parametrize(("name", "text", "size", "boxes"), CASES)
def test_boxes_are_in_pixels_of_the_image(name, text, size, boxes):
    answer = style(name).read(text, size, SEEN)
    assert answer.boxes == [pytest.approx(box) for box in boxes]
    assert answer.no_target is False and answer.readable


def test_florences_bins_are_those_of_its_processor():
    torch = pytest.importorskip("torch")
    processing = pytest.importorskip("transformers.models.florence2.processing_florence2")
    bins = torch.tensor([[156, 104, 469, 729]])
    bare = SimpleNamespace(quantize_bins=(1000, 1000))
    official = processing.Florence2PostProcessor.dequantize(bare, bins, WIDE)
    answer = style("florence-2").read("cup<loc_156><loc_104><loc_469><loc_729>", WIDE)
    assert [int(value) for value in answer.boxes[0]] == official[0].tolist()  # it cuts fractions of pixels off


@pytest.mark.parametrize(("first", "last"), [(44, 863), (5, 5), (3, 900), (64, 70)])
def test_kosmos_cells_are_those_of_its_processor(first, last):
    processing = pytest.importorskip("transformers.models.kosmos2.processing_kosmos2")
    words = f"<phrase>it</phrase><object><patch_index_{first:04}><patch_index_{last:04}></object>"
    x1, y1, x2, y2 = processing.patch_index_to_coordinate(first, last, 32)
    assert style("kosmos-2").read(words, WIDE).boxes == [pytest.approx([x1 * 640, y1 * 480, x2 * 640, y2 * 480])]


@pytest.mark.parametrize(
    ("name", "text", "points"),
    [
        ("molmo", '<point x="25.0" y="50.0" alt="cup">cup</point>', [[160, 240]]),
        ("molmo", '<points x1="25" y1="50" x2="75.5" y2="10" alt="cups">cups</points>', [[160, 240], [483.2, 48]]),
        ("molmo2", '<points coords="1 1 250 500 2 750 100">cups</points>', [[160, 240], [480, 48]]),
        ("qwen2.5-vl", '{"point_2d": [161, 119], "label": "cup"}', [[160, 120]]),
        ("gemini", '[{"point": [500, 250], "label": "cup"}]', [[160, 240]]),
        ("ferret", "the cup [250, 500]", [[160, 240]]),
    ],
)
def test_points(name, text, points):
    answer = style(name).read(text, WIDE, SEEN)
    assert answer.points == [pytest.approx(point) for point in points] and not answer.boxes


def test_every_style_names_its_convention_and_its_source_and_has_a_case():
    tested = {case[0] for case in CASES} | {"florence-2", "kosmos-2", "molmo", "molmo2"}
    for name, family in style_classes().items():
        assert name in tested
        assert family.about() and "https://" in (family.__doc__ or ""), name


@pytest.mark.parametrize(
    "text",
    [
        "There is no red cup in the image.",
        "Sorry, there's no such person here.",
        "The described object is not present in the picture.",
        "The woman isn't in the image",
        "I cannot find a red cup.",
        "none",
        "None.",
        "```json\n[]\n```",
        '```json\n{"bbox_2d": []}\n```',
        '[{"bbox_2d": null, "label": "cup"}]',
        "<ref>cup</ref><box>[]</box>",
        "<box></box>",
        "<think>Is it [1, 2, 3, 4]? No.</think>There are no zebras.",
        "图中没有红色的杯子。",
    ],
)
def test_a_denied_target_is_no_target(text):
    answer = style("internvl").read(text, WIDE)
    assert answer.no_target is True and answer.readable and not answer.boxes


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that request.",
        "I can't see any image. Please upload one.",
        "As an AI language model, I do not have eyes.",
        "I cannot identify people in photos.",
    ],
)
def test_a_refusal_is_no_answer(text):
    answer = style("internvl").read(text, WIDE)
    assert (answer.silence, answer.no_target, answer.readable) == ("refusal", None, False)


@pytest.mark.parametrize("text", ["", None, "The cup on the left.", "It is at 12 o'clock.", "<think>there is no"])
def test_what_says_nothing_is_unreadable(text):
    answer = style("qwen3-vl").read(text, WIDE)
    assert answer.silence is None and answer.no_target is None


@pytest.mark.parametrize(
    ("name", "text", "doubt", "boxes"),
    [
        ("qwen3-vl", "The cup is at [250, 500, 750, 1000].", "not written as", 1),
        ("paligemma", "[250, 500, 750, 1000]", "were special tokens skipped", 0),
        ("florence-2", "cup<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6>", "no multiple of four", 1),
        ("internvl", "There is no cup, but [[250, 500, 750, 1000]] is a mug", "deny the target", 1),
        ("shikra", "[250, 500, 750, 1000]", "larger than the side", 1),
        ("internvl", "[[0.25, 0.5, 0.75, 1.0]]", "fractions of at most 1", 1),
        ("internvl", "[[750, 500, 250, 1000]]", "x2 < x1", 0),
        ("internvl", "<box>" + "[1, 2, 3, 4]" * 200 + "</box>", "more than 100", 100),
    ],
)
def test_doubts_are_said(name, text, doubt, boxes):
    answer = style(name).read(text, WIDE)
    assert any(doubt in words for words in answer.doubts) and len(answer.boxes) == boxes


def test_the_size_the_model_saw_is_asked_for():
    reader = style("qwen2.5-vl")
    assert reader.needs_model_size and not style("qwen3-vl").needs_model_size
    with pytest.raises(UserError, match=r"size is not known.*scale=WIDTH,HEIGHT"):
        reader.read('{"bbox_2d": [1, 2, 3, 4]}', WIDE)
    stated = style("qwen2.5-vl", Coordinates())
    assert stated.read('{"bbox_2d": [1, 2, 3, 4]}', WIDE).boxes == [[1, 2, 3, 4]]


def test_an_unknown_style_lists_what_there_is():
    with pytest.raises(UserError, match=r"style=qwen25-vl: no such.*did you mean qwen2.5-vl\? there are: asmv2, "):
        style("qwen25-vl")


def test_a_style_of_another_package(monkeypatch):
    class Mine(AnswerStyle):
        """Mine: ``|1 2 3 4|``, pixels. Source: https://example.org"""

        name = "mine"
        coordinates = Coordinates()
        grammar = ()
        shape = "[1, 2, 3, 4]"

    monkeypatch.setitem(added_styles._added, "mine", Mine)
    assert "mine" in style_classes() and style("mine").read("[1, 2, 3, 4]", WIDE).boxes == [[1, 2, 3, 4]]


def test_an_answer_becomes_a_prediction():
    geometry = Geometry((644 / 640, 476 / 480), (0.0, 0.0), (480, 640), (476, 644))
    words = '{"bbox_2d": [161, 119, 322, 357]}'
    prediction = style("qwen2.5-vl").read(words, WIDE, SEEN).prediction(words, geometry)
    assert prediction.boxes.tolist() == [[160, 120, 320, 360]] and prediction.scores.tolist() == [1]
    assert (prediction.answer, prediction.no_target, prediction.point) == (words, False, None)
    pointed = style("molmo").read('<point x="25.5" y="50">', (100, 100)).prediction("...")
    assert pointed.point == (25, 50) and not len(pointed.boxes)


@pytest.mark.parametrize(
    "part", ["<", "<box>", '"bbox_2d": [', "[1,", "there is ", "<points ", "<loc_1>", "no one a ", " ", "1", "(1,2)"]
)
def test_runaway_answers_take_no_time(part):
    text = part * (100_000 // len(part))
    start = time.process_time()
    for name in ("qwen2.5-vl", "molmo", "florence-2", "asmv2"):
        style(name).read(text, WIDE, SEEN)
    assert time.process_time() - start < 20  # quadratic time would be minutes
