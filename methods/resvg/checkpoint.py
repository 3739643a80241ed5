"""Names in the authors' files: ResVG and VLTVG checkpoints, the DETR initialisation, BERT."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from vgbench.checkpoints.names import KeyEntry, LoadReport, load_mapped
from vgbench.checkpoints.read import read_checkpoint
from vgbench.core.errors import UserError
from vgbench.layers.bert import bert_weights
from vgbench.methods.resvg.model import ResVGNetwork

__all__ = ["entries", "load_pretrained", "load_whole"]

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


def entries(network: ResVGNetwork) -> list[KeyEntry]:
    """Every parameter and buffer of ``network`` with its name in the authors' checkpoints."""
    names = (name for name in network.state_dict() if not name.endswith("num_batches_tracked"))
    return [KeyEntry(name, (official_name(name),)) for name in names]


def load_whole(network: ResVGNetwork, state: Mapping[str, Tensor]) -> LoadReport:
    """A ResVG checkpoint, or a VLTVG checkpoint into a network without the prior branch; strict.

    ``LayerNorm.gamma/beta`` of the 2018 BERT archives are taken for ``weight/bias``.

    Raises:
        UserError: if names or shapes do not fit; nothing is loaded then.
    """
    has_prior = any(name.startswith("trans_decoder.decoder.ffn.") for name in state)
    if not has_prior and network.prior_mlp is not None and any(name.startswith("trans_decoder.") for name in state):
        raise UserError("this is a VLTVG checkpoint, without a prior branch; set method.prior_dim=null to load it")
    modern = {_modern(name): value for name, value in state.items()}
    report = load_mapped(network, modern, entries(network), "an official ResVG checkpoint", UNUSED)
    original = {_modern(name): name for name in state}
    return LoadReport(
        used=tuple(original[name] for name in report.used), unused=tuple(original[name] for name in report.unused)
    )


def _modern(name: str) -> str:
    if not name.startswith("bert."):
        return name
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def load_part(network: ResVGNetwork, state: Mapping[str, Tensor], source: Path) -> LoadReport:
    """One of the files that training starts from, told by its names: DETR (backbone, ``input_proj``, encoder), BERT,
    or VLTVG (everything but the prior branch).

    Raises:
        UserError: if it is none of them or does not fit.
    """
    own = entries(network)
    if any(name.startswith("trans_decoder.") for name in state):
        own = [entry for entry in own if not entry.ours.startswith("prior_mlp.")]
        return load_mapped(
            network, state, own, "an official VLTVG checkpoint", (*UNUSED, "trans_decoder.decoder.ffn.*")
        )
    if any(name.startswith("transformer.encoder.") for name in state):
        wanted = [entry for entry in own if entry.ours.startswith(("backbone.", "input_proj.", "encoder."))]
        detr = [
            KeyEntry(entry.ours, (entry.official[0].replace("trans_encoder.", "transformer.", 1),)) for entry in wanted
        ]
        return load_mapped(network, state, detr, "a DETR checkpoint (detr-r50*.pth)", DETR_UNUSED)
    bert = bert_weights(state)
    if bert:
        names = {ours: official for ours, (official, _) in bert.items()}
        table = [KeyEntry(f"bert.{name}", (names.get(name, name),)) for name in network.bert.state_dict()]
        return load_mapped(network, state, table, "a BERT checkpoint (bert-base-uncased)", ("*",))
    raise UserError(f"{source}: neither DETR nor BERT nor VLTVG weights; give detr-r50*.pth and bert-base-uncased")


def parts_in(path: Path) -> list[Path]:
    """The checkpoint files that ``pretrained=`` names: the file itself, or those in a folder and its subfolders (a
    folder in the layout of transformers counts once, by its safetensors file).

    Raises:
        UserError: if there is none.
    """
    if not path.is_dir():
        return [path]
    files = []
    for folder in [path, *sorted(item for item in path.iterdir() if item.is_dir())]:
        safe = sorted(folder.glob("*.safetensors"))
        files += safe or sorted(folder.glob("pytorch_model.bin"))
        files += sorted(folder.glob("*.pth"))
    if not files:
        raise UserError(f"{path}: holds no checkpoint; put detr-r50*.pth and the folder bert-base-uncased there")
    return files


def load_pretrained(network: ResVGNetwork, path: Path) -> LoadReport:
    """:func:`load_part` for every file of ``path`` (a file or a folder, see :func:`parts_in`)."""
    reports = [load_part(network, read_checkpoint(file), file) for file in parts_in(path)]
    return LoadReport(
        used=tuple(name for report in reports for name in report.used),
        unused=tuple(name for report in reports for name in report.unused),
    )
