"""Names in the authors' files: ResVG and VLTVG checkpoints, the DETR initialisation, BERT."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from vgbench.checkpoints.names import KeyEntry, LoadReport, load_mapped
from vgbench.checkpoints.parts import Part, load_parts
from vgbench.core.errors import UserError
from vgbench.core.published import PublishedFile
from vgbench.layers.bert import BERT_FOLDER, load_bert, looks_like_bert
from vgbench.methods.resvg.model import ResVGNetwork
from vgbench.text.wordpiece import BERT_VOCABULARY

__all__ = ["PUBLISHED", "load_pretrained", "load_whole", "official_names"]

# TransVG's page, which ResVG points to: https://github.com/djiajunustc/TransVG/blob/main/docs/GETTING_STARTED.md
_DETR = "https://drive.google.com/drive/folders/1SOHPCCR6yElQmVp96LGJhfTP46RxVwzF"
PUBLISHED = (
    BERT_VOCABULARY,
    BERT_FOLDER,
    *(
        PublishedFile(
            f"detr-r50-{name}.pth", f"DETR without the test images of {data}", "pretrained", _DETR, folder=True
        )
        for name, data in (
            ("unc", "RefCOCO and RefCOCO+"),
            ("gref", "RefCOCOg"),
            ("referit", "ReferItGame and Flickr30k"),
        )
    ),
)

# (pattern of our name, official name); the first that matches counts. Names that match none are the same.
RENAMES = (
    (r"backbone\.(.*)", r"backbone.0.body.\1"),
    (r"encoder\.(.*)", r"trans_encoder.encoder.\1"),
    (r"discriminative\.scale", "trans_decoder.decoder.extra_encoder_layers.0.tf_scale"),
    (r"discriminative\.sigma", "trans_decoder.decoder.extra_encoder_layers.0.tf_sigma"),
    (r"discriminative\.verify_attn\.(.*)", r"trans_decoder.decoder.extra_encoder_layers.0.img2text_attn.\1"),
    (r"discriminative\.context_attn\.(.*)", r"trans_decoder.decoder.extra_encoder_layers.0.img2textcond_attn.\1"),
    (r"discriminative\.relation_attn\.(.*)", r"trans_decoder.decoder.extra_encoder_layers.0.img2img_attn.\1"),
    (r"discriminative\.text_proj\.(.*)", r"trans_decoder.decoder.extra_encoder_layers.0.text_proj.layers.0.\1"),
    (r"discriminative\.image_proj\.(.*)", r"trans_decoder.decoder.extra_encoder_layers.0.img_proj.layers.0.\1"),
    (r"discriminative\.norm_image\.(.*)", r"trans_decoder.decoder.extra_encoder_layers.0.norm_img.\1"),
    (r"discriminative\.norm_context\.(.*)", r"trans_decoder.decoder.extra_encoder_layers.0.norm_text_cond_img.\1"),
    (r"decoder\.(vis_query|text_query)", r"trans_decoder.decoder.\1_embed.weight"),
    (r"decoder\.stages\.(\d+)\.image_attn\.(.*)", r"trans_decoder.decoder.layers.\1.img_attn.\2"),
    (r"decoder\.stages\.(.*)", r"trans_decoder.decoder.layers.\1"),
    (r"decoder\.norm\.(.*)", r"trans_decoder.decoder.norm.\1"),
    (r"prior_mlp\.(.*)", r"trans_decoder.decoder.ffn.\1"),
    (r"box_head\.(.*)", r"bbox_embed.\1"),
)

OFFSET_TABLES = (".pos_x", ".pos_y")  # of our names and the authors'

# Official names without effect: BERT's pooler is never read, the first public commit registered the prior MLP twice,
# and frozen batch norm counts nothing.
UNUSED = ("bert.pooler.*", "bert.embeddings.position_ids", "trans_decoder.decoder.mlp.*", "*.num_batches_tracked")
DETR_UNUSED = ("transformer.decoder.*", "query_embed.*", "class_embed.*", "bbox_embed.*", "*.num_batches_tracked")


def official_name(ours: str) -> str:
    for pattern, official in RENAMES:
        match = re.fullmatch(pattern, ours)
        if match:
            return match.expand(official)
    return ours


def official_names(network: ResVGNetwork) -> list[KeyEntry]:
    """Every parameter and buffer of ``network`` with its name in the authors' checkpoints."""
    names = (name for name in network.state_dict() if not name.endswith("num_batches_tracked"))
    return [KeyEntry(name, (official_name(name),)) for name in names]


def refit_offsets(module: nn.Module, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """A state dict, of our names or the authors', for relative-position tables that reach farther or less far.

    The tables are a fixed code of the offset relative to their reach (:class:`~.model.RelativeAttention`), so that
    those of the module are what the file would hold at its reach.

    Returns:
        The state dict with the module's tables, and the names of those that were exchanged.
    """
    tables = {name: value for name, value in module.state_dict().items() if name.endswith(OFFSET_TABLES)}
    own = {official_name(name): value for name, value in tables.items()} | tables
    exchanged = tuple(
        name
        for name, value in state.items()
        if name in own and value.shape[1:] == own[name].shape[1:] and len(value) != len(own[name])
    )
    return {**state, **{name: own[name] for name in exchanged}}, exchanged


def load_whole(network: ResVGNetwork, state: Mapping[str, Tensor]) -> LoadReport:
    """A ResVG checkpoint, or a VLTVG checkpoint into a network without the prior branch; strict.

    ``LayerNorm.gamma/beta`` of the 2018 BERT archives are taken for ``weight/bias``.

    Raises:
        UserError: if names or shapes do not fit; nothing is loaded then.
    """
    has_prior = any(name.startswith("trans_decoder.decoder.ffn.") for name in state)
    if not has_prior and network.prior_mlp is not None and any(name.startswith("trans_decoder.") for name in state):
        raise UserError("this is a VLTVG checkpoint, without a prior branch; set method.prior_dim=null to load it")
    modern, refitted = refit_offsets(network, {_modern(name): value for name, value in state.items()})
    what = "an official ResVG checkpoint"
    report = load_mapped(network, modern, official_names(network), what, UNUSED, refitted)
    original = {_modern(name): name for name in state}
    return LoadReport(
        used=tuple(original[name] for name in report.used),
        unused=tuple(original[name] for name in report.unused),
        adapted=tuple(original[name] for name in report.adapted),
    )


def _modern(name: str) -> str:
    if not name.startswith("bert."):
        return name
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _has(prefix: str) -> Callable[[Mapping[str, Tensor]], bool]:
    """Whether any name of a state dict begins with ``prefix``."""
    return lambda state: any(name.startswith(prefix) for name in state)


def _load_vltvg(network: ResVGNetwork, state: Mapping[str, Tensor]) -> LoadReport:
    """Everything but the prior branch."""
    table = [entry for entry in official_names(network) if not entry.ours.startswith("prior_mlp.")]
    state, refitted = refit_offsets(network, state)
    unused = (*UNUSED, "trans_decoder.decoder.ffn.*")
    return load_mapped(network, state, table, "an official VLTVG checkpoint", unused, refitted)


def _load_detr(network: ResVGNetwork, state: Mapping[str, Tensor]) -> LoadReport:
    """Backbone, ``input_proj`` and encoder."""
    table = [
        KeyEntry(entry.ours, (entry.official[0].replace("trans_encoder.", "transformer.", 1),))
        for entry in official_names(network)
        if entry.ours.startswith(("backbone.", "input_proj.", "encoder."))
    ]
    return load_mapped(network, state, table, "a DETR checkpoint (detr-r50*.pth)", DETR_UNUSED)


def load_pretrained(network: ResVGNetwork, path: Path) -> LoadReport:
    """What training starts from, each file told by its names: DETR, BERT, or VLTVG.

    Args:
        network: the whole network.
        path: a file or a folder, see :func:`vgbench.checkpoints.parts.checkpoint_files`.

    Raises:
        UserError: if a file is none of them or does not fit, or there is none.
    """
    parts = (
        Part("VLTVG", _has("trans_decoder."), partial(_load_vltvg, network)),
        Part("DETR", _has("transformer.encoder."), partial(_load_detr, network)),
        Part("BERT", looks_like_bert, partial(load_bert, network.bert)),
    )
    reports = load_parts(path, parts, "give detr-r50*.pth and the folder bert-base-uncased")
    return LoadReport.joined(reports.values())
