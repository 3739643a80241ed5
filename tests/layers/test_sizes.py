"""Sizes that a method cannot do are one line when it is built; position tables are fitted to those that it can."""

import pytest
import torch

from vgbench.batches.collate import collate
from vgbench.batches.samples import plain_sample
from vgbench.config.stored import make_method
from vgbench.core.errors import UserError
from vgbench.methods.resvg.checkpoint import official_names
from vgbench.training import weights

METHODS = ("alvg", "simvg", "resvg", "vglaw", "amc")


def built(name, **options):
    path = weights.resolve("shipped", name, "refshapes")
    return path, make_method({**weights.method_config(path), **options}, path)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("value", [0, -32, 64.0, "big"])
def test_impossible_image_sizes_are_refused_by_the_option(name, value):
    with pytest.raises(UserError, match=rf"method\.image_size={value}: give a whole number"):
        built(name, image_size=value)


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("alvg", {"image_size": 100}, "image_size=100 is no multiple of method.patch_size=16"),
        ("simvg", {"max_tokens": 23}, r"max_tokens=23 exceeds method.max_text_positions=24 \(it needs 25\)"),
        ("simvg", {"encoder_heads": 5}, "encoder_width=64 is no multiple of method.encoder_heads=5"),
        ("alvg", {"decoder_layers": 0}, "decoder_layers=0: give a whole number of at least 1"),
        ("resvg", {"max_tokens": 33}, r"max_tokens=33 exceeds method.bert.max_positions=32"),
        ("resvg", {"heads": 5}, "width=96 is no multiple of method.heads=5"),
        ("vglaw", {"image_size": 100}, "image_size=100 is no multiple of method.patch_size=16"),
        ("vglaw", {"max_tokens": 25}, "max_tokens=25 exceeds method.max_positions=24"),
        ("vglaw", {"gather_heads": 5}, "text_dim=96 is no multiple of method.gather_heads=5"),
        ("amc", {"eval_size": 100}, "eval_size=100 is no multiple of method.patch_size=16"),
        ("amc", {"text_heads": 5}, "text_width=96 is no multiple of method.text_heads=5"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(name, options, problem):
    with pytest.raises(UserError, match=rf"method\.{problem}"):
        built(name, **options)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("side", [64, 256])
def test_trained_weights_serve_other_image_sizes(name, side):
    options = {"eval_size": side} if name == "amc" else {}
    path, method = built(name, image_size=side, **options)
    weights.load(method, path)
    sample = plain_sample(torch.full((3, 40, 60), 128, dtype=torch.uint8), "the red circle")
    batch = collate([method.eval().eval_transform()(sample)], method.tokenize)
    with torch.set_grad_enabled(method.requires_grad_at_inference):
        prediction = method.predict(batch)[method.outputs[0]][0]
    assert torch.isfinite(prediction.boxes).all()


def test_vglaw_interpolates_its_relative_positions_as_its_forward_pass_would():
    path, small = built("vglaw")
    weights.load(small, path)
    _, large = built("vglaw", image_size=256)
    weights.load(large, path)
    name = "model.visual_encoder.blocks.1.attn.rel_pos_h"
    before, after = small.state_dict()[name], large.state_dict()[name]
    assert (len(before), len(after)) == (15, 31)
    expected = torch.nn.functional.interpolate(before.t()[None], size=31, mode="linear")[0].t()
    assert torch.allclose(after, expected, atol=1e-3)  # the shipped weights are half precision


def test_resvg_offsets_count_relative_to_the_grid():
    path, small = built("resvg")
    weights.load(small, path)
    _, large = built("resvg", image_size=256)
    weights.load(large, path)
    name = "model.discriminative.relation_attn.pos_y"
    before, after = small.state_dict()[name], large.state_dict()[name]
    assert (len(before), len(after)) == (17, 33)
    assert torch.allclose(after[::2], before, atol=1e-3)  # twice the cells on the same picture
    state = small.model.state_dict()
    report = large.load_official({entry.official[0]: state[entry.ours] for entry in official_names(small.model)})
    assert sorted(report.adapted) == [
        f"trans_decoder.decoder.extra_encoder_layers.0.img2img_attn.{table}" for table in ("pos_x", "pos_y")
    ]
