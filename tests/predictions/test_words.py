"""Which numbers in a model's words are a box, and which words are its answer."""

import time

import pytest

from vgbench.predictions.numbers import corners
from vgbench.predictions.styles import style, style_classes
from vgbench.predictions.words import LONGEST, MOST, answer_text, read_words


@pytest.mark.parametrize(
    ("words", "boxes"),
    [
        ("player 23 [156, 104, 469, 729].", [[156, 104, 469, 729]]),
        ("1. [156, 104, 469, 729]", [[156, 104, 469, 729]]),
        ("1. (1, 2), (3, 4) 2. (5, 6), (7, 8)", [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ("number 7 [[156, 104], [469, 729]]", [[156, 104, 469, 729]]),
        ("from (10, 20) to (30, 40)", [[10, 20, 30, 40]]),
        ("man 5<loc_1><loc_2><loc_3><loc_4></s>", [[1, 2, 3, 4]]),
        ("<loc0106><loc0160><loc0746><loc0480> person 2", [[106, 160, 746, 480]]),
        ('{"y1": 2, "x1": 1, "y2": 4, "x2": 3}', [[1, 2, 3, 4]]),
        ("xmin=1, ymin=2, xmax=3, ymax=4", [[1, 2, 3, 4]]),
        ('{"x": 1, "y": 2, "width": 3, "height": 4}', [[1, 2, 4, 6]]),
        ('{"cx": 10, "cy": 20, "w": 4, "h": 8}', [[8, 16, 12, 24]]),
        ('{"top_left": [1, 2], "bottom_right": [3, 4]}', [[1, 2, 3, 4]]),
        ("center: (10, 20), size: (4, 8)", [[8, 16, 12, 24]]),
        ("top-left corner (1, 2) and bottom-right corner (3, 4)", [[1, 2, 3, 4]]),
        ("<loc_1> <loc_2>, <loc_3> <loc_4>", [[1, 2, 3, 4]]),
        ("\u5728\uff3b1\uff0c2\uff0c3\uff0c4\uff3d", [[1, 2, 3, 4]]),
        ("the box is 1, 2, 3, 4", [[1, 2, 3, 4]]),
        ("[10px, 20px, 30px, 40px]", [[10, 20, 30, 40]]),
        ("<think>Not [5, 5, 6, 6].</think>[1, 2, 3, 4]", [[1, 2, 3, 4]]),
        ("not [5, 5, 6, 6]</think><answer>[1, 2, 3, 4]</answer> [7, 7, 8, 8]", [[1, 2, 3, 4]]),
        ("<think>[9, 9, 9, 9] <answer></think> <|begin_of_box|>[[1, 2, 3, 4]]<|end_of_box|>", [[1, 2, 3, 4]]),
        (r"[5, 5, 6, 6] does not fit, so \boxed{[1, 2, 3, 4]}", [[1, 2, 3, 4]]),
        ("<think>first [5, 5, 6, 6], or", []),
        ("[1, 2, 3]", []),
        ("[1e300, 2, 3, 4]", []),
    ],
)
def test_boxes_in_words(words, boxes):
    assert read_words(words, "xyxy").boxes == boxes


def test_cells_of_kosmos_are_read_from_centre_to_centre():
    reading = read_words("<phrase>it</phrase><object><patch_index_0044><patch_index_0863></object>", "xyxy")
    assert reading.cells and reading.boxes == [[12.5, 1.5, 31.5, 26.5]]  # cells (12, 1) and (31, 26) of 32 x 32
    assert read_words("<patch_index_0000><patch_index_0003>", "xyxy").boxes == [[0, 0, 4, 1]]


@pytest.mark.parametrize(
    ("words", "doubt"),
    [
        ("<think>first [5, 5, 6, 6], or", "break off in the reasoning"),
        ("23, 1, 2, 3, 4", "numbers beside the four"),
        ("[5, 5, 6, 6]? No. Final answer: [1, 2, 3, 4]", "name boxes before the words"),
        ("[1, 2, 3, 4] " * (MOST + 1), "more than"),
        ("[1e300, 2, 3, 4]", "no coordinate"),
    ],
)
def test_doubts_are_said(words, doubt):
    assert any(doubt in text for text in read_words(words, "xyxy").doubts)


@pytest.mark.parametrize("piece", ["1", "1 ", "[", "[1, ", "x1=1 ", "<", "a", " ", "(1,2),", "answer: 1 ", "1.", "-"])
def test_runaway_words_take_no_time(piece):
    started = time.perf_counter()
    read_words(piece * (3_000_000 // len(piece)), "xyxy")
    assert time.perf_counter() - started < 20  # a square of the length would be hours
    assert LONGEST < 3_000_000


@pytest.mark.parametrize("piece", ["<|begin_of_box|>", "<answer>", "</think>", '"bbox_2d": [', "\\boxed{"])
def test_runaway_marks_take_no_time_in_any_style(piece):
    words = piece * (1_400_000 // len(piece))
    started = time.process_time()
    for name in style_classes():
        style(name).read(words, (640, 480), (644, 476))
    assert time.process_time() - started < 15  # a look for the missing end behind every mark took minutes for each


def test_marks_of_boxes_without_an_end():
    start, end = "<|begin_of_box|>", "<|end_of_box|>"
    assert answer_text(f"a {start}[[1,2,3,4]]{end} b {start}[[5,6,7,8]]")[0] == "[[1,2,3,4]]\n[[5,6,7,8]]"
    assert answer_text(f"{start}{'x' * 30_000}{start}[[1,2,3,4]]{end}")[0] == "[[1,2,3,4]]"
    assert answer_text(f"{start}{start}1{end}{end}")[0] == f"{start}1"


def test_a_number_that_goes_on_is_no_coordinate():
    assert read_words("x1=1, y1=2, x2=3, y2=4.5", "xyxy").boxes == [[1, 2, 3, 4.5]]
    assert read_words("x1=1, y1=2, x2=3, y2=4.5.6", "xyxy").boxes == []
    assert read_words("x1=1, y1=2, x2=3, y2=1234567890123", "xyxy").boxes == []  # twelve of its digits are another one


@pytest.mark.parametrize(
    ("form", "box"),
    [
        ("xyxy", [1, 2, 4, 8]),
        ("xywh", [1, 2, 3, 6]),
        ("yxyx", [2, 1, 8, 4]),
        ("yxhw", [2, 1, 6, 3]),
        ("cxcywh", [2.5, 5, 3, 6]),
        ("xxyy", [1, 4, 2, 8]),
    ],
)
def test_orders_of_four_numbers(form, box):
    assert corners(box, form) == [1, 2, 4, 8]
