"""Metrics against numbers worked out by hand and against other libraries."""

import math

import numpy as np
import pytest
import torch
from pycocotools import mask as coco
from torchvision.ops import box_iou, generalized_box_iou

from vgbench.core.errors import UserError
from vgbench.data import rle
from vgbench.data.table import AnnotationTable
from vgbench.metrics import boxes
from vgbench.metrics.catalog import make_metric, metric_class, primary_metric
from vgbench.metrics.frames import to_canvas
from vgbench.metrics.pairs import Pairs
from vgbench.metrics.pointing import enlarge, peak
from vgbench.metrics.tasks import SUITE
from vgbench.predictions.table import Predictions
from vgbench.types import Geometry, Prediction


def table(rows, height=100, width=200, task="rec"):
    base = {"image": "", "expression": "", "masks": [], "polygons": [], "ann_ids": [], "categories": []}
    base |= {"ref_id": None, "sent_id": None, "source": "", "split": "val", "height": height, "width": width}
    full = [{**base, "key": str(i), "image_id": i // 2, "group": i, **row} for i, row in enumerate(rows)]
    return AnnotationTable.from_rows(full, {"dataset": "test", "split": "val", "task": task})


def answer(found=(), scores=None, **others):
    found = torch.tensor(found, dtype=torch.float32).reshape(-1, 4)
    scores = torch.ones(len(found)) if scores is None else torch.tensor(scores, dtype=torch.float32)
    return Prediction(found, scores, **others)


def compute(spec, annotations, answers):
    metric = make_metric(spec)
    predictions = Predictions.from_list(annotations.column("key").tolist(), answers)
    metric.update(Pairs(predictions, annotations, np.arange(len(annotations))))
    return {name: value.item() for name, value in metric.compute().items()}


def random_boxes(n, seed):
    random = np.random.default_rng(seed)
    low = random.uniform(0, 50, (n, 2))
    return np.concatenate([low, low + random.uniform(1, 60, (n, 2))], axis=1)


def test_overlaps_equal_torchvision():
    first, second = random_boxes(40, 0), random_boxes(30, 1)
    ours = boxes.iou(first[:, None], second[None])
    np.testing.assert_allclose(ours, box_iou(torch.tensor(first), torch.tensor(second)), atol=1e-12)
    ours = boxes.giou(first[:, None], second[None])
    np.testing.assert_allclose(ours, generalized_box_iou(torch.tensor(first), torch.tensor(second)), atol=1e-12)


def test_overlap_of_points_is_zero_not_nan():
    point = np.array([3.0, 4.0, 3.0, 4.0])
    assert boxes.iou(point, point) == 0 and boxes.giou(point, point) == 0


def test_pixel_conventions():
    first, second = np.array([0.0, 0, 9, 9]), np.array([0.0, 0, 9, 4])
    assert boxes.iou(first, second) == 36 / 81
    assert boxes.iou_plus1(first, second) == 50 / 100  # ten by ten and ten by five pixels
    assert boxes.iou_inclusive_intersection(first, second) == 36 / 81
    assert boxes.iou_inclusive_intersection(first, np.array([8.5, 0, 20, 9])) == 0  # half a pixel wide


class TestREC:
    truth = table([{"boxes": [[0, 0, 10, 10]]}, {"boxes": [[0, 0, 10, 10]]}, {"boxes": [[50, 50, 60, 60]]}])

    def test_default(self):
        answers = [answer([[0, 0, 10, 5], [0, 0, 10, 10]], [0.9, 0.8]), answer([[0, 0, 10, 8]]), answer()]
        values = compute("rec", self.truth, answers)
        assert values["prec@0.5"] == pytest.approx(200 / 3)  # exactly 0.5 counts, no box is wrong
        assert values["prec@0.8"] == pytest.approx(100 / 3)
        assert values["miou"] == pytest.approx(100 * (0.5 + 0.8) / 3)
        assert compute("rec/strict", self.truth, answers)["prec@0.5"] == pytest.approx(100 / 3)
        assert compute("rec/topk", self.truth, answers) == pytest.approx(
            {"prec@0.5": 200 / 3, "prec@0.5_top5": 200 / 3, "prec@0.5_top10": 200 / 3, "miou": 130 / 3}
        )

    def test_giou_sorts_ties_by_coordinates_and_is_stricter(self):
        shifted = answer([[0, 0, 10, 5], [0, 0, 10, 10]], [0.9, 0.9])
        values = compute("rec/giou", self.truth, [shifted, answer([[5, 5, 15, 15]]), answer([[50, 50, 60, 60]])])
        assert values["prec@0.5"] == pytest.approx(200 / 3)  # the larger tuple of the tie is the whole box

    def test_clipped_ground_truth(self):
        edge = table([{"boxes": [[190, 0, 200, 10]]}])
        half = answer([[190, 0, 194.8, 10]])
        assert compute("rec", edge, [half])["prec@0.5"] == 0
        assert compute("rec/gt_clip", edge, [half])["prec@0.5"] == 100  # 4.8 x 9 of 9 x 9, outside part 4.8

    def test_truncated_ground_truth_survives_float_sums(self):
        # 10.1 + 172 - 10.1 is a hair below 172: the width must stay 172.
        truth = table([{"boxes": [[10.1, 5, 10.1 + 172.0, 6.9]]}])
        values = compute("rec/int_gt", truth, [answer([[10, 5, 182, 6]])])
        assert values["miou"] == 100

    def test_batch_mean_weighs_the_last_batch_as_much(self):
        right, wrong = answer([[0, 0, 10, 10]]), answer([[80, 80, 90, 90]])
        values = compute("rec/batch_mean@2", self.truth, [right, wrong, answer([[50, 50, 60, 60]])])
        assert values["prec@0.5"] == 75

    def test_canvas_clamp_only_matters_outside_the_square(self):
        truth = table([{"boxes": [[0, 0, 100, 100]]}])
        out = answer([[-100, 0, 100, 100]])
        assert compute("rec/canvas@640", truth, [out])["miou"] == pytest.approx(50)
        assert compute("rec/canvas_clamp@640", truth, [out])["miou"] == pytest.approx(100)
        # The padding above the image belongs to the square: a box may reach 50 pixels into it.
        above = answer([[0, -80, 100, 100]])
        assert compute("rec/canvas_clamp@640", truth, [above])["miou"] == pytest.approx(100 / 1.5)

    def test_canvas_needs_a_frame(self):
        with pytest.raises(UserError, match="geometry"):
            compute("rec/canvas", self.truth, [answer([[0, 0, 1, 1]])] * 3)

    def test_vlm_centre_includes_the_border(self):
        values = compute("rec/vlm", self.truth, [answer([[0, 0, 20, 10]]), answer([[2, 2, 22, 10]]), answer()])
        assert values["center_acc"] == pytest.approx(100 / 3)
        assert values["prec@0.1"] == pytest.approx(200 / 3)

    def test_generalised_data_is_refused(self):
        with pytest.raises(UserError, match=r"0 targets.*grec"):
            compute("rec", table([{"boxes": []}]), [answer()])

    def test_unknown_names_are_refused(self):
        for spec, words in {"rec/gio": "no variant 'gio'", "rex": "no task", "rec/giou@3": "takes no number"}.items():
            with pytest.raises(UserError, match=words):
                make_metric(spec)


def mask(top, left, bottom, right, size=(100, 200)):
    pixels = np.zeros(size, np.uint8)
    pixels[top:bottom, left:right] = 1
    return rle.encode(pixels)


def masked(masks, polygons=None, **others):
    found = [[0, 0, 1, 1]] * len(masks)
    return {
        "boxes": found,
        "masks": [m["counts"] for m in masks],
        "polygons": polygons or [1] * len(masks),
        **others,
    }


class TestRES:
    truth = table([masked([mask(0, 0, 10, 10)], [2]), masked([mask(0, 0, 20, 20)]), masked([mask(50, 50, 60, 60)])])
    answers = (answer(mask=mask(0, 0, 10, 5)), answer(mask=mask(0, 0, 20, 30)), answer())

    def test_default(self):
        values = compute("res", self.truth, self.answers)
        assert values["miou"] == pytest.approx(100 * (0.5 + 2 / 3) / 3)
        assert values["oiou"] == pytest.approx(100 * (50 + 400) / (100 + 600 + 100))
        assert values["prec@0.5"] == pytest.approx(200 / 3)
        assert values["prec@0.7"] == 0

    def test_crowd_divides_by_the_predicted_area(self):
        assert compute("res/crowd", self.truth, self.answers)["miou"] == pytest.approx(100 * (1 + 2 / 3) / 3)

    def test_strict_and_empty_union(self):
        assert compute("res/cris", self.truth, self.answers)["prec@0.5"] == pytest.approx(100 / 3)
        nothing = table([masked([mask(0, 0, 0, 0)])])
        empty = [answer(mask=mask(0, 0, 0, 0))]
        assert compute("res", nothing, empty)["miou"] == 0
        assert compute("res/eps_one", nothing, empty)["miou"] == 100

    def test_several_polygons_count_once_where_they_overlap(self):
        # In GRES a target's masks may overlap; the union counts each pixel once.
        both = table([masked([mask(0, 0, 10, 10), mask(0, 5, 10, 15)])], task="grec")
        assert compute("gres", both, [answer(mask=mask(0, 0, 10, 15))])["giou"] == 100

    def test_stretched_frame_weighs_images_equally(self):
        small, large = (50, 50), (100, 200)
        truth = table(
            [
                masked([mask(0, 0, 25, 50, small)], height=50, width=50),
                masked([mask(0, 0, 100, 200, large)]),
            ]
        )
        answers = [answer(mask=mask(0, 0, 50, 50, small)), answer(mask=mask(0, 0, 50, 200, large))]
        assert compute("res", truth, answers)["oiou"] == pytest.approx(100 * (1250 + 10000) / (2500 + 20000))
        assert compute("res/res480", truth, answers) == pytest.approx(compute("res", truth, answers), abs=1e-9)
        uneven = [answer(mask=mask(0, 0, 25, 50, small)), answers[1]]
        assert compute("res/res480", truth, uneven)["oiou"] == pytest.approx(100 * (0.5 + 0.5) / (0.5 + 1))

    def test_canvas_frame(self):
        frame = Geometry(scale=(0.25, 0.5), offset=(0.0, 0.0), size=(100, 200), canvas=(50, 50))
        truth = table([masked([mask(0, 0, 50, 100)])])
        own = answer(mask=mask(0, 0, 1, 1), canvas_mask=mask(0, 0, 25, 25, (50, 50)), geometry=frame)
        assert compute("res/canvas", truth, [own])["miou"] == 100

    def test_polygons_are_not_offered(self):
        with pytest.raises(UserError, match="res480_poly: not offered"):
            make_metric("res/res480_poly")

    def test_missing_masks_are_named(self):
        with pytest.raises(UserError, match="predictions have no masks"):
            compute("res", self.truth, [answer()] * 3)
        with pytest.raises(UserError, match="dataset has no masks"):
            compute("res", table([{"boxes": [[0, 0, 1, 1]]}]), [answer(mask=mask(0, 0, 1, 1))])


def test_canvas_takes_floor_of_the_scaled_index():
    import cv2

    pixels = np.random.default_rng(0).random((37, 53)) < 0.5
    frame = Geometry((64 / 53, 40 / 37), (0.0, 0.0), (37, 53), (40, 64))
    expected = cv2.resize(pixels.astype(np.uint8), (64, 40), interpolation=cv2.INTER_NEAREST)
    assert (to_canvas(pixels, frame) == expected).all()
    boxed = Geometry.letterbox(37, 53, 64)
    inner = cv2.resize(pixels.astype(np.uint8), (64, 45), interpolation=cv2.INTER_NEAREST)
    assert (to_canvas(pixels, boxed)[9 : 9 + 45] == inner).all() and not to_canvas(pixels, boxed)[:9].any()


class TestGREC:
    one, two = [0, 0, 10, 10], [50, 50, 70, 70]
    truth = table([{"boxes": [one]}, {"boxes": [one, two]}, {"boxes": []}, {"boxes": []}], task="grec")

    def test_default(self):
        answers = [
            answer([self.one, self.two], [0.9, 0.2]),  # the second is not kept
            answer([self.one, self.two, self.one], [0.9, 0.8, 0.75]),  # a duplicate is a false positive
            answer([self.one], [0.3]),
            answer([self.one], [0.9]),
        ]
        assert compute("grec", self.truth, answers) == {"pr@f1": 50, "n_acc": 50, "t_acc": 100}

    def test_float32_scores_at_the_threshold(self):
        answers = [answer([self.one], [0.7]), *[answer()] * 3]
        assert compute("grec", self.truth, answers)["pr@f1"] == 50  # float32(0.7) < 0.7
        assert compute("grec/first_box", self.truth, answers)["pr@f1"] == 75

    def test_giou_is_stricter_than_iou(self):
        # IoU 68.9 / 131.1, generalised 0.48
        diagonal = [answer([[1.7, 1.7, 11.7, 11.7]]), *[answer()] * 3]
        assert compute("grec/iou", self.truth, diagonal)["pr@f1"] == 75
        assert compute("grec", self.truth, diagonal)["pr@f1"] == 50

    def test_greedy_matching_equals_a_plain_loop(self):
        random = np.random.default_rng(3)
        rows, answers, right = [], [], 0
        for index in range(300):
            truth = random_boxes(random.integers(1, 4), 1000 + index)
            found = truth[random.permutation(len(truth))] + random.normal(0, 1.5, truth.shape)
            found[:, 2:] = np.maximum(found[:, 2:], found[:, :2])
            rows.append({"boxes": truth.tolist()})
            answers.append(answer(found.tolist()))
            matrix = generalized_box_iou(
                torch.tensor(found, dtype=torch.float32).double(), torch.tensor(truth, dtype=torch.float32).double()
            )
            hits = 0
            while matrix.max() >= 0.5:
                row, column = divmod(int(matrix.argmax()), matrix.shape[1])
                matrix[row], matrix[:, column] = -2, -2
                hits += 1
            right += hits == len(truth)
        assert 0 < right < 300
        assert compute("grec", table(rows, task="grec"), answers)["pr@f1"] == pytest.approx(100 * right / 300)

    def test_batches_without_rejection_pull_n_acc_down(self):
        answers = [answer([self.one]), answer([self.one, self.two]), answer(), answer()]
        assert compute("grec/batch_mean@2", self.truth, answers) == {"pr@f1": 100, "n_acc": 50}

    def test_no_empty_expression_means_not_defined(self):
        assert math.isnan(compute("grec", table([{"boxes": [self.one]}]), [answer([self.one])])["n_acc"])


class TestGRES:
    truth = table(
        [masked([mask(0, 0, 10, 10)]), masked([]), masked([]), masked([mask(0, 0, 10, 10)])],
        task="grec",
    )

    def test_default_follows_the_decision(self):
        answers = [
            answer(mask=mask(0, 0, 10, 8), no_target=False),
            answer(mask=mask(0, 0, 5, 5), no_target=True),  # right: IoU 1, its area is not counted
            answer(mask=mask(0, 0, 5, 4), no_target=False),  # wrong: 20 pixels of union
            answer(mask=mask(0, 0, 10, 10), no_target=True),  # a right mask taken back
        ]
        values = compute("gres", self.truth, answers)
        assert values["giou"] == pytest.approx(100 * (0.8 + 1) / 4)
        assert values["ciou"] == pytest.approx(100 * 80 / (100 + 20 + 100))
        assert (values["n_acc"], values["t_acc"]) == (50, 50)
        assert (values["prec@0.8"], values["prec@0.9"]) == (50, 0)

    def test_other_rejections(self):
        answers = [
            answer([[0, 0, 1, 1]], [0.9], mask=mask(0, 0, 10, 10), no_target=True),
            answer([[0, 0, 1, 1]], [0.7], mask=mask(0, 0, 0, 0), no_target=False),
            answer(mask=mask(0, 0, 1, 1)),
            answer(mask=mask(0, 0, 10, 10)),
        ]
        by_mask = compute("gres/nt_from_mask", self.truth, answers)
        assert (by_mask["n_acc"], by_mask["t_acc"], by_mask["giou"]) == (50, 100, 75)
        by_boxes = compute("gres/nt_from_boxes", self.truth, answers)
        assert (by_boxes["n_acc"], by_boxes["t_acc"], by_boxes["giou"]) == (100, 50, 75)
        batches = compute("gres/nt_from_mask_batch_mean@2", self.truth, answers)
        assert batches == pytest.approx({"giou": 75, "ciou": 100 * (1 + 100 / 101) / 2})


class TestPointing:
    def test_strictly_inside_any_box(self):
        truth = table([{"boxes": [[2, 2, 5, 5], [7, 7, 9, 9]]}] * 4)
        answers = [answer(point=point) for point in [(3, 3), (2, 3), (8, 8), (6, 6)]]
        assert compute("pointing", truth, answers)["pointing_acc"] == 50
        assert compute("pointing/merged", truth, answers)["pointing_acc"] == 75

    def test_words_without_a_point_are_a_miss_whatever_the_boxes(self):
        truth = table([{"boxes": [[-5, -5, 20, 20]]}] * 2)
        answers = [answer(point=(3, 3), answer="here"), answer(answer="I cannot see it.")]
        assert compute("pointing", truth, answers)["pointing_acc"] == 50
        with pytest.raises(UserError, match="neither point nor heatmap"):
            compute("pointing", truth, [answer(point=(3, 3)), answer()])

    def test_first_maximum_of_the_enlarged_map(self):
        heat = torch.zeros(4, 8)
        heat[1, 2] = heat[3, 7] = 1.0
        assert peak(enlarge(heat, (4, 8))) == (2, 1)
        heat[3, 7] = 0.0
        truth = table([{"boxes": [[50, 25, 75, 50]]}])  # the cell's own pixels
        assert compute("pointing", truth, [answer(heatmap=heat)])["pointing_acc"] == 100

    def test_proposals_are_ranked_by_heat(self):
        heat = torch.zeros(10, 20)
        heat[2:4, 4:6] = 1.0
        truth = table([{"boxes": [[40, 20, 60, 40]]}] * 2)
        proposals = [[0, 0, 200, 100], [40, 20, 61, 40], [100, 50, 120, 70]]
        cold = torch.zeros(10, 20)
        values = compute(
            "pointing/box_from_proposals", truth, [answer(proposals, heatmap=heat), answer(proposals, heatmap=cold)]
        )
        assert values == {"prec@0.5": 50}

    def test_no_point_is_named(self):
        with pytest.raises(UserError, match="neither point nor heatmap"):
            compute("pointing", table([{"boxes": [[0, 0, 1, 1]]}]), [answer()])


def test_recall_by_rank_and_type():
    truth = table(
        [
            {"boxes": [[0, 0, 10, 10], [20, 0, 30, 10]], "categories": ["people/clothing"] * 2},
            {"boxes": [[0, 0, 10, 10]], "categories": ["people"]},
            {"boxes": [], "categories": []},
        ]
    )
    answers = [answer([[20, 0, 30, 10]]), answer([[90, 90, 99, 99], [0, 0, 10, 9]]), answer([[0, 0, 1, 1]])]
    values = compute("phrase", truth, answers)
    assert (values["recall@1"], values["recall@5"]) == (50, 100)  # the phrase without a box is not counted
    assert (values["recall@1[people]"], values["recall@1[clothing]"]) == (50, 100)
    assert compute("phrase/merged", truth, answers)["recall@1"] == 0
    assert compute("phrase/plus1", truth, answers)["center_acc"] == 50


def test_run_length_arithmetic_equals_pixels():
    random = np.random.default_rng(0)
    first = [random.random((h, w)) < random.random() for h, w in random.integers(1, 40, (60, 2))]
    second = [random.random(pixels.shape) < random.random() for pixels in first]
    one, other = [rle.encode(p) for p in first], [rle.encode(p) for p in second]
    assert rle.areas(one).tolist() == [int(p.sum()) for p in first]
    assert rle.intersections(one, other).tolist() == [int((p & q).sum()) for p, q in zip(first, second, strict=True)]
    sizes = np.array([p.size for p in first])
    assert rle.valid([m["counts"] for m in one], sizes).all()
    assert not rle.valid([m["counts"] for m in one], sizes + 1).any()
    assert (rle.decode(rle.union([one[0], other[0]])) == (first[0] | second[0])).all()
    with pytest.raises(ValueError, match="masks of a pair"):
        rle.intersections(one[:1], [rle.encode(np.zeros((50, 50), bool))])


def test_damaged_run_lengths_are_found():
    good = coco.encode(np.asfortranarray(np.eye(60, dtype=np.uint8)))["counts"].decode()
    for bad in ["", good[:-1], good + "1", "b'" + good + "'", good[:10] + "o", "o" * 30, good.replace("l", "é")]:
        assert not rle.valid([bad, good], np.array([3600, 3600]))[0], bad
        assert rle.valid([bad, good], np.array([3600, 3600]))[1]
    for bad in (":Ko2", "0X6ZKZK"):  # runs 10, -5, 95 and 0, 200, -150, 50: C code would take them for huge ones
        assert not rle.valid([bad], np.array([100]))[0]


def test_primary_metrics():
    assert primary_metric(["res", "rec"]) == "rec/prec@0.5"
    assert primary_metric(["gres"]) == "gres/giou"
    assert primary_metric(["gres", "grec"]) == "grec/pr@f1"
    assert primary_metric(["pointing"]) == "pointing/pointing_acc"


def test_the_card_lists_every_variant():
    from pathlib import Path

    import vgbench.metrics

    card = (Path(vgbench.metrics.__file__).parent / "README.md").read_text()
    for task in SUITE:
        for name, variant in metric_class(task).variants.items():
            assert f"| `{task}/{name}{'@N' if variant.number else ''}` | {variant.note} |" in card
