"""Names of ALVG's parameters here and in the authors' checkpoints (yscfromchina/ALVG)."""

from __future__ import annotations

from vgbench.checkpoints.names import KeyEntry
from vgbench.layers.beit3 import MASK_TOKEN, beit3_keys
from vgbench.methods.beit3.heads import PredictionHead
from vgbench.methods.beit3.published import VOCABULARY, encoder
from vgbench.methods.beit3.queries import QueryGenerator

__all__ = ["PUBLISHED", "UNUSED", "official_names"]

PUBLISHED = (
    VOCABULARY,
    encoder("beit3_base_indomain_patch16_224", "start weights, base size, one data set"),
    encoder("beit3_large_indomain_patch16_224", "start weights, large size"),
    encoder("beit3_base_patch16_224", "start weights, base size, pre-training on several data sets"),
)

# Keys of the authors' files that nothing reads.
UNUSED = (
    f"vis_enc.beit3.{MASK_TOKEN}",  # masked image modelling
    "head.class_embed_token.*",  # heads of a token branch that ALVG does not have
    "head.bbox_embed_token.*",
    "head.mask_head.cross_attn.*",  # created, never called
    "head.mask_head.norm.*",
    "head.criterion.empty_weight",  # the constants (1, 0.1)
)


def official_names(encoder_layers: int, query_layers: int, decoder_layers: int, enhance: bool) -> list[KeyEntry]:
    """The whole table for a model of these depths, with or without image enhancement."""

    def entries(ours: str, official: str, kinds: tuple[str, ...] = ("weight", "bias")) -> list[KeyEntry]:
        return [KeyEntry(f"{ours}.{kind}", (f"head.{official}.{kind}",)) for kind in kinds]

    attention = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    batch_norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    table = beit3_keys(encoder_layers, "encoder.", "vis_enc.beit3.")
    table += [
        KeyEntry("image_proj.weight", ("head.input_proj.weight",), trailing=2),
        KeyEntry("image_proj.bias", ("head.input_proj.bias",)),
        *entries("text_proj", "input_text_proj"),
        *QueryGenerator.keys(query_layers),
        *PredictionHead.keys("head", "decoder"),
    ]
    if enhance:
        table += entries("enhance.image_proj", "transformer.img_enhance.img_proj")
        table += entries("enhance.text_proj", "transformer.img_enhance.text_proj")
    for k in range(decoder_layers):
        ours, theirs = f"decoder.layers.{k}", f"transformer.decoder.layers.{k}"
        for name in ("self_attn", "cross_attn"):
            table += entries(f"{ours}.{name}", f"{theirs}.{name}", attention)
        names = {"norm_self": "norm1", "norm_ffn": "norm2", "norm_cross": "norm3"}
        for our, their in ({"linear1": "linear1", "linear2": "linear2"} | names).items():
            table += entries(f"{ours}.{our}", f"{theirs}.{their}")
    table += entries("mask_head.refine", "mask_head.refine.0", ("weight",))
    table += entries("mask_head.refine_norm", "mask_head.refine.1", batch_norm)
    for i in range(3):
        table += entries(f"mask_head.up{i + 1}", f"mask_head.upsample.{3 * i}")
    for i in range(2):
        table += entries(f"mask_head.norm{i + 1}", f"mask_head.upsample.{3 * i + 1}", batch_norm)
    return table
