"""Box overlaps and position codes against torchvision and hand-computed values."""

import math

import pytest
import torch
from torchvision.ops import box_convert, box_iou, generalized_box_iou

from vgbench.layers.boxes import cxcywh_to_xyxy, giou, iou, pairwise, xyxy_to_cxcywh
from vgbench.layers.position import sine_position_2d
from vgbench.methods.beit3.queries import truncated_sine_position_1d


def random_boxes(n: int) -> torch.Tensor:
    corner = torch.rand(n, 2)
    return torch.cat([corner, corner + 0.05 + torch.rand(n, 2)], -1)


def test_formats_agree_with_torchvision():
    boxes = random_boxes(20)
    centre = xyxy_to_cxcywh(boxes)
    torch.testing.assert_close(centre, box_convert(boxes, "xyxy", "cxcywh"))
    torch.testing.assert_close(cxcywh_to_xyxy(centre), boxes)


def test_overlaps_agree_with_torchvision():
    a, b = random_boxes(7), random_boxes(5)
    torch.testing.assert_close(iou(*pairwise(a, b)), box_iou(a, b))
    torch.testing.assert_close(giou(*pairwise(a, b)), generalized_box_iou(a, b))
    torch.testing.assert_close(giou(a[:5], b), generalized_box_iou(a[:5], b).diagonal())


def test_eps_is_added_to_both_denominators():
    a = torch.tensor([0.0, 0.0, 1.0, 1.0])
    b = torch.tensor([0.5, 0.0, 1.5, 1.0])  # I = 0.5, U = 1.5, C = 1.5
    assert iou(a, b, eps=0.5).item() == pytest.approx(0.5 / 2.0)
    far = torch.tensor([2.0, 0.0, 3.0, 1.0])  # I = 0, U = 2, C = 3
    assert giou(a, far, eps=1.0).item() == pytest.approx(-1.0 / 4.0)
    point = torch.zeros(4)
    assert giou(point, point, eps=1e-6).item() == 0.0


def test_overlaps_stay_float32_for_half_inputs():
    assert iou(random_boxes(2).bfloat16(), random_boxes(2).bfloat16()).dtype == torch.float32


def test_sine_position_by_the_formula():
    code = sine_position_2d(torch.zeros(1, 3, 5, dtype=torch.bool), 8)
    y = 2 / (3 + 1e-6) * 2 * math.pi  # row 1
    x = 4 / (5 + 1e-6) * 2 * math.pi  # column 3
    slow = 10000 ** (2 / 4)
    wanted = [math.sin(y), math.cos(y), math.sin(y / slow), math.cos(y / slow)]
    wanted += [math.sin(x), math.cos(x), math.sin(x / slow), math.cos(x / slow)]
    torch.testing.assert_close(code[0, :, 1, 3], torch.tensor(wanted))


def test_sine_position_counts_only_valid_cells():
    pad = torch.zeros(2, 4, 6, dtype=torch.bool)
    pad[1, 3:] = True
    pad[1, :, 4:] = True
    padded = sine_position_2d(pad, 16)[1]
    alone = sine_position_2d(torch.zeros(1, 3, 4, dtype=torch.bool), 16)[0]
    torch.testing.assert_close(padded[:, :3, :4], alone)


def test_text_position_is_the_degenerate_code():
    code = truncated_sine_position_1d(3, 6)
    wanted = torch.tensor([[math.sin(t), math.cos(t), 0, 1, 0, 1] for t in range(3)])
    torch.testing.assert_close(code, wanted)
