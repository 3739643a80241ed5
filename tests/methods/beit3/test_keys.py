"""Every key of the authors' checkpoints of BEiT-3, ALVG and SimVG is consumed, at full size (shapes only).

The tables are written down from the layout of the published files, not from our own tables of names.
"""

from __future__ import annotations

import re

import pytest
import torch

from vgbench.core.errors import UserError
from vgbench.layers.beit3 import BEiT3, load_beit3
from vgbench.methods.alvg import ALVG
from vgbench.methods.simvg import SimVG

Shapes = dict[str, list[int]]
LARGE = {"encoder_width": 1024, "encoder_layers": 24, "encoder_heads": 16, "encoder_ffn": 4096}
SIZES = {"base": (12, 768, 3072), "large": (24, 1024, 4096)}


def official_shapes(layers: int, d: int, f: int, grid: int, patch: int, prefix: str = "beit3.") -> Shapes:
    """Every key of the published encoder, written down from its documentation."""
    shapes: Shapes = {
        "text_embed.weight": [64010, d],
        "vision_embed.proj.weight": [d, 3, patch, patch],
        "vision_embed.proj.bias": [d],
        "vision_embed.cls_token": [1, 1, d],
        "vision_embed.mask_token": [1, 1, d],
        "encoder.embed_positions.A.weight": [grid * grid + 3, d],
        "encoder.embed_positions.B.weight": [1024, d],
    }
    for x in "AB":
        linear = {"fc1": (f, d), "fc2": (d, f)}
        for i in range(layers):
            layer = f"encoder.layers.{i}"
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                shapes[f"{layer}.self_attn.{name}.{x}.weight"] = [d, d]
                shapes[f"{layer}.self_attn.{name}.{x}.bias"] = [d]
            for name in ("self_attn_layer_norm", "self_attn.inner_attn_ln", "final_layer_norm"):
                shapes |= {f"{layer}.{name}.{x}.{kind}": [d] for kind in ("weight", "bias")}
            for name, (out, into) in linear.items():
                shapes[f"{layer}.ffn.{x}.{name}.weight"] = [out, into]
                shapes[f"{layer}.ffn.{x}.{name}.bias"] = [out]
            shapes |= {f"{layer}.ffn.{x}.ffn_layernorm.{kind}": [f] for kind in ("weight", "bias")}
        shapes |= {f"encoder.layer_norm.{x}.{kind}": [d] for kind in ("weight", "bias")}
    return {prefix + name: shape for name, shape in shapes.items()}


def affine(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": list(shape), f"{name}.bias": [shape[0]]}


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": [width], f"{name}.bias": [width]}


def attention(name: str, e: int = 256) -> Shapes:
    return {
        f"{name}.in_proj_weight": [3 * e, e],
        f"{name}.in_proj_bias": [3 * e],
        f"{name}.out_proj.weight": [e, e],
        f"{name}.out_proj.bias": [e],
    }


def detrex_layer(name: str, ffn: int, e: int = 256) -> Shapes:
    shapes = attention(f"{name}.attentions.0.attn") | attention(f"{name}.attentions.1.attn")
    shapes |= affine(f"{name}.ffns.0.layers.0.0", ffn, e) | affine(f"{name}.ffns.0.layers.1", e, ffn)
    for i in range(3):
        shapes |= norm(f"{name}.norms.{i}", e)
    return shapes


def box_heads(branch: str) -> Shapes:
    shapes = affine(f"head.class_embed_{branch}", 2, 256)
    for i, out in enumerate((256, 256, 4)):
        shapes |= affine(f"head.bbox_embed_{branch}.layers.{i}", out, 256)
    return shapes


def shared_head(d: int, queries: int) -> Shapes:
    """What both methods have."""
    shapes: Shapes = {"head.query_embed.weight": [queries, 256], "head.criterion.empty_weight": [2]}
    shapes |= {"head.input_proj.weight": [256, d, 1, 1], "head.input_proj.bias": [256]}
    shapes |= affine("head.input_text_proj", 256, d) | box_heads("decoder") | box_heads("token")
    generator = "head.text_guided_query_generation_transformer"
    for i in range(2):
        shapes |= detrex_layer(f"{generator}.layers.{i}", 512)
    return shapes | norm(f"{generator}.post_norm_layer", 256)


def alvg_shapes(size: str, queries: int = 1) -> Shapes:
    layers, d, f = SIZES[size]
    shapes = official_shapes(layers, d, f, 20, 32, "vis_enc.beit3.") | shared_head(d, queries)
    shapes |= affine("head.transformer.img_enhance.text_proj", 256, 256)
    shapes |= affine("head.transformer.img_enhance.img_proj", 256, 256)
    for k in range(3):
        layer = f"head.transformer.decoder.layers.{k}"
        shapes |= attention(f"{layer}.self_attn") | attention(f"{layer}.cross_attn")
        shapes |= affine(f"{layer}.linear1", 2048, 256) | affine(f"{layer}.linear2", 256, 2048)
        for i in (1, 2, 3):
            shapes |= norm(f"{layer}.norm{i}", 256)
    mask = "head.mask_head"
    shapes |= attention(f"{mask}.cross_attn") | norm(f"{mask}.norm", 256)
    shapes[f"{mask}.refine.0.weight"] = [128, 256, 3, 3]
    for name, a, b in (("0", 128, 64), ("3", 64, 32), ("6", 32, 1)):
        shapes |= {f"{mask}.upsample.{name}.weight": [a, b, 4, 4], f"{mask}.upsample.{name}.bias": [b]}
    for name, c in (("refine.1", 128), ("upsample.1", 64), ("upsample.4", 32)):
        shapes |= norm(f"{mask}.{name}", c) | {f"{mask}.{name}.running_mean": [c], f"{mask}.{name}.running_var": [c]}
        shapes |= {f"{mask}.{name}.num_batches_tracked": []}
    return shapes


def simvg_shapes(size: str, queries: int = 1) -> Shapes:
    layers, d, f = SIZES[size]
    shapes = official_shapes(layers, d, f, 20, 32, "vis_enc.beit3.") | shared_head(d, queries)
    shapes |= affine("head.input_cls_proj", 256, d) | affine("head.mlp.layers.0", 256, 256)
    for i in range(3):
        shapes |= detrex_layer(f"head.transformer.decoder.layers.{i}", 2048)
    shapes |= norm("head.transformer.decoder.post_norm_layer", 256)
    return shapes | {"head.criterion_harddistill.empty_weight": [2]}


def meta(shapes: Shapes) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("sizes", "keys", "parameters"),
    [((12, 768, 12, 3072), 491, 222_913_536), ((24, 1024, 16, 4096), 971, 675_270_656)],
    ids=["base", "large"],
)
def test_beit3(sizes, keys, parameters):
    layers, width, heads, ffn = sizes
    shapes = official_shapes(layers, width, ffn, 20, 32)
    assert len(shapes) == keys
    with torch.device("meta"):
        encoder = BEiT3(width, layers, heads, ffn)
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
    report = load_beit3(encoder, state)
    assert len(report.used) == keys - 1 and report.unused == ("beit3.vision_embed.mask_token",)
    assert sum(p.numel() for p in encoder.parameters()) + width == parameters  # width: the unused mask token


@pytest.mark.parametrize(("size", "keys", "parameters"), [("base", 637, 230_747_181), ("large", 1117, 683_235_373)])
def test_alvg(size, keys, parameters):
    shapes = alvg_shapes(size)
    assert len(shapes) == keys
    with torch.device("meta"):
        method = ALVG(**(LARGE if size == "large" else {}))
    report = method.load_official(meta(shapes))
    assert len(report.used) + len(report.unused) == len(shapes)
    dead = {name: torch.Size(shapes[name]).numel() for name in report.unused if name != "head.criterion.empty_weight"}
    assert count(method) + sum(dead.values()) == parameters
    assert 0.39e6 < sum(dead.values()) < 0.41e6
    dead_parts = r"head\.(class_embed_token|bbox_embed_token|mask_head\.(cross_attn|norm))\..*|vis_enc\..*mask_token"
    assert all(re.fullmatch(dead_parts, name) for name in dead)


@pytest.mark.parametrize(("size", "keys", "millions"), [("base", 612, 230.16), ("large", 1092, 682.71)])
def test_simvg(size, keys, millions):
    shapes = simvg_shapes(size)
    assert len(shapes) == keys
    with torch.device("meta"):
        method = SimVG(**(LARGE if size == "large" else {}))
    report = method.load_official(meta(shapes))
    assert set(report.unused) == {
        "vis_enc.beit3.vision_embed.mask_token",
        "head.criterion.empty_weight",
        "head.criterion_harddistill.empty_weight",
    }
    assert round((count(method) + SIZES[size][1]) / 1e6, 2) == millions


def test_the_token_branch_alone_needs_no_decoder_keys():
    with torch.device("meta"):
        method = SimVG(branches=["token"])
    shapes = simvg_shapes("base")
    report = method.load_official(meta(shapes))
    decoder = ("head.input_proj", "head.transformer", "head.class_embed_decoder", "head.bbox_embed_decoder")
    dead = {name for name in report.unused if "criterion" not in name and "mask_token" not in name}
    assert dead == {name for name in shapes if name.startswith(decoder)}


@pytest.mark.parametrize(("method", "shapes"), [(ALVG, alvg_shapes), (SimVG, simvg_shapes)])
def test_multi_target_checkpoints_and_wrong_ones(method, shapes):
    with torch.device("meta"):
        model = method(num_queries=10)
    model.load_official(meta(shapes("base", queries=10)))
    with pytest.raises(UserError, match=r"'head.query_embed.weight' is \[1, 256\].*\[10, 256\]"):
        model.load_official(meta(shapes("base")))
    missing = shapes("base", queries=10)
    del missing["head.input_text_proj.bias"]
    with pytest.raises(UserError, match=r"the first is 'head.input_text_proj.bias'"):
        model.load_official(meta(missing))
    with pytest.raises(UserError, match=r"1 keys are unknown, the first is 'head.surprise'"):
        model.load_official(meta(shapes("base", queries=10) | {"head.surprise": [1]}))


def test_a_checkpoint_of_the_other_method_says_so():
    with torch.device("meta"):
        alvg, simvg = ALVG(), SimVG()
    with pytest.raises(UserError, match=r"expected an official ALVG .*looks like a SimVG checkpoint"):
        alvg.load_official(meta(simvg_shapes("base")))
    with pytest.raises(UserError, match=r"expected an official SimVG .*looks like an ALVG checkpoint"):
        simvg.load_official(meta(alvg_shapes("base")))
