"""Names of SimVG's parameters here and in the authors' checkpoints (Dmmm1997/SimVG)."""

from __future__ import annotations

from vgbench.checkpoints.names import KeyEntry
from vgbench.core.published import PublishedFile
from vgbench.layers.beit3 import MASK_TOKEN, beit3_keys
from vgbench.methods.beit3.decoder import DecoderLayer
from vgbench.methods.beit3.heads import PredictionHead
from vgbench.methods.beit3.published import VOCABULARY, encoder
from vgbench.methods.beit3.queries import QueryGenerator

__all__ = ["DECODER_ONLY", "PUBLISHED", "UNUSED", "official_names"]

PUBLISHED = (
    VOCABULARY,
    encoder("beit3_base_patch16_224", "start weights, base size; the recipes call it .zip"),
    encoder("beit3_large_patch16_224", "start weights, large size"),
    PublishedFile(
        "det_best.pth",
        "trained models, in tables by data set",
        "checkpoint",
        "https://github.com/Dmmm1997/SimVG#models",
    ),
)

# Keys of the authors' files that nothing reads.
UNUSED = (
    f"vis_enc.beit3.{MASK_TOKEN}",  # masked image modelling
    "head.criterion.empty_weight",  # the constants (1, 0.1)
    "head.criterion_harddistill.empty_weight",
)

# Keys that the token branch does without.
DECODER_ONLY = (
    "head.input_proj.*",
    "head.transformer.decoder.*",
    "head.class_embed_decoder.*",
    "head.bbox_embed_decoder.*",
)


def official_names(encoder_layers: int, query_layers: int, decoder_layers: int | None) -> list[KeyEntry]:
    """The whole table for a model of these depths; ``decoder_layers=None``: of the token branch alone."""

    def entries(ours: str, official: str) -> list[KeyEntry]:
        return [KeyEntry(f"{ours}.{kind}", (f"head.{official}.{kind}",)) for kind in ("weight", "bias")]

    table = beit3_keys(encoder_layers, "encoder.", "vis_enc.beit3.")
    table += entries("text_proj", "input_text_proj") + entries("cls_proj", "input_cls_proj")
    table += QueryGenerator.keys(query_layers)
    table += entries("token_proj", "mlp.layers.0") + PredictionHead.keys("token_head", "token")
    if decoder_layers is not None:
        table.append(KeyEntry("image_proj.weight", ("head.input_proj.weight",), trailing=2))
        table.append(KeyEntry("image_proj.bias", ("head.input_proj.bias",)))
        for i in range(decoder_layers):
            table += DecoderLayer.keys(f"decoder.layers.{i}", f"head.transformer.decoder.layers.{i}")
        table += entries("decoder.norm", "transformer.decoder.post_norm_layer")
        table += PredictionHead.keys("decoder_head", "decoder")
    return table
