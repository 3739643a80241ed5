"""Files that VG-LAW starts from (Detectron2's ViTDet, BERT), and the names of its parameters in the authors' files."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgbench.checkpoints.names import KeyEntry, LoadReport, load_mapped
from vgbench.checkpoints.parts import Part, load_parts
from vgbench.checkpoints.read import read_checkpoint
from vgbench.core.errors import UserError
from vgbench.core.published import PublishedFile
from vgbench.core.unpickle import load_pickle
from vgbench.layers.bert import BERT_FOLDER, load_bert, looks_like_bert
from vgbench.layers.vitdet import ViTDet, fit_relative_positions
from vgbench.text.wordpiece import BERT_VOCABULARY

__all__ = [
    "PUBLISHED",
    "load_backbone",
    "load_pretrained",
    "official_names",
    "read_detectron2",
]

PUBLISHED = (
    BERT_VOCABULARY,
    BERT_FOLDER,
    PublishedFile(
        "model_final_61ccd1.pkl",
        "ViTDet Mask R-CNN, ViT-B",
        "pretrained",
        "https://dl.fbaipublicfiles.com/detectron2/ViTDet/COCO/mask_rcnn_vitdet_b/f325346929/model_final_61ccd1.pkl",
        folder=True,
    ),
)

log = logging.getLogger(__name__)

UNUSED = ("text_encoder.pooler.dense.weight", "text_encoder.pooler.dense.bias")
MASK_HEAD = "up_sample.*"
PARTS_ADVICE = "put Detectron2's model_final_61ccd1.pkl and the folder of bert-base-uncased there"

_SAFE_PICKLE: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("collections", "OrderedDict"): dict,
    **{("builtins", kind.__name__): kind for kind in (complex, frozenset, set)},
}
_reconstruct = np.zeros(0).__reduce__()[0]
_scalar = np.float64(0).__reduce__()[0]
_frombuffer = np.zeros(1).__reduce_ex__(5)[0]  # type: ignore[index]
for _module in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    _SAFE_PICKLE[f"{_module}.multiarray", "_reconstruct"] = _reconstruct
    _SAFE_PICKLE[f"{_module}.multiarray", "scalar"] = _scalar
    _SAFE_PICKLE[f"{_module}.numeric", "_frombuffer"] = _frombuffer


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes inside pickles of protocol 2, which has none of its own."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"_codecs.encode to {encoding!r}")
    return text.encode("latin-1")


_SAFE_PICKLE["_codecs", "encode"] = _latin1


def _bytearray(content: bytes = b"", *arguments: str) -> bytearray:
    """Of bytes or a text, as pickles make them: not of a length, which would take as much memory as it says."""
    if not isinstance(content, bytes | str):
        raise pickle.UnpicklingError("a bytearray of a length")
    return bytearray(content, *arguments)  # type: ignore[arg-type]


_SAFE_PICKLE["builtins", "bytearray"] = _bytearray


def read_detectron2(path: Path) -> dict[str, Tensor]:
    """The weights of a Detectron2 checkpoint: a model-zoo ``.pkl`` (arrays under ``model``) or a ``.pth``.

    Raises:
        UserError: if the file is neither, or holds anything besides arrays and plain containers.
    """
    if path.suffix != ".pkl":
        return read_checkpoint(path)
    try:
        content = load_pickle(path, _SAFE_PICKLE)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give Detectron2's ViTDet .pkl") from None
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: not loaded for safety: {error}; give Detectron2's model-zoo file") from None
    except Exception as error:  # a damaged pickle can raise anything
        raise UserError(f"{path}: not a pickle of arrays ({type(error).__name__}); download it again") from None
    model = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(model, dict) or not model or not all(isinstance(value, np.ndarray) for value in model.values()):
        raise UserError(f"{path}: no arrays under 'model' in it; give Detectron2's ViTDet checkpoint")
    if any(value.dtype.kind not in "fiub" for value in model.values()):
        raise UserError(f"{path}: holds arrays that are no numbers; give Detectron2's ViTDet checkpoint")
    return {str(name): torch.from_numpy(np.array(value)) for name, value in model.items()}


def _fit_relative(table: Tensor, length: int) -> Tensor:
    """Centre crop of a longer relative-position table [m, d]; a shorter one is interpolated."""
    cut = len(table) - length
    if cut > 0 and cut % 2 == 0:
        return table[cut // 2 : cut // 2 + length]
    return fit_relative_positions(table, length)


def _fit_absolute(table: Tensor, length: int) -> Tensor:
    """Absolute position table [1, 1 + g^2, C] for another grid: bicubic; the class token's row stays."""
    old, new = round((table.shape[1] - 1) ** 0.5), round((length - 1) ** 0.5)
    if old**2 != table.shape[1] - 1:
        return table  # not a square grid with a class token: the shape check says so
    grid = table[:, 1:].unflatten(1, (old, old)).permute(0, 3, 1, 2).float()
    grid = F.interpolate(grid, (new, new), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1].float(), grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1).to(table.dtype)


def fit_positions(
    backbone: ViTDet,
    state: Mapping[str, Tensor],
    prefix: str,
    fit_relative: Callable[[Tensor, int], Tensor] = fit_relative_positions,
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """A state dict with the position tables of a visual encoder as long as the encoder's own.

    Args:
        backbone: the encoder.
        state: names and tensors of a file.
        prefix: of the encoder's names in it.
        fit_relative: makes a relative table [m, d] as long as it is told; by default as the forward pass would,
            interpolated linearly.

    Returns:
        The state dict, and the names whose tensors were changed.
    """
    fitted, adapted = dict(state), []
    for name, target in backbone.named_parameters():
        value = fitted.get(prefix + name)
        if value is None or value.shape == target.shape or value.ndim != target.ndim:
            continue
        if name.rsplit(".", 1)[-1] in ("rel_pos_h", "rel_pos_w") and value.shape[1] == target.shape[1]:
            fitted[prefix + name] = fit_relative(value, len(target))
        elif name == "pos_embed" and value.shape[2] == target.shape[2]:
            fitted[prefix + name] = _fit_absolute(value, target.shape[1])
        else:
            continue
        adapted.append(prefix + name)
    return fitted, tuple(adapted)


def load_backbone(backbone: ViTDet, state: Mapping[str, Tensor]) -> LoadReport:
    """Load a Detectron2 ViTDet detector's ViT; the pyramid and the detection heads are left out.

    Relative-position tables of global blocks belong to 1024 px there: their centre is cut out. An absolute table for
    another pretraining grid is resized.

    Raises:
        UserError: if the state dict is no ViTDet, or of other sizes.
    """
    parameters = dict(backbone.named_parameters())
    prefix = next((prefix for prefix in ("backbone.net.", "net.") if f"{prefix}pos_embed" in state), "")
    fitted, adapted = fit_positions(backbone, state, prefix, _fit_relative)
    return load_mapped(
        backbone,
        fitted,
        [KeyEntry(name, (prefix + name,)) for name in parameters],
        "a Detectron2 ViTDet checkpoint (ViT-B)",
        unused=("backbone.simfp_*", "simfp_*", "proposal_generator.*", "roi_heads.*", "pixel_mean", "pixel_std"),
        adapted=adapted,
    )


def load_pretrained(text_encoder: nn.Module, backbone: ViTDet, path: Path) -> LoadReport:
    """Load a ViTDet detector and a BERT, each recognised by its names.

    Args:
        text_encoder: gets the BERT.
        backbone: gets the ViTDet.
        path: one checkpoint, or a folder with both (a transformers folder may be a subfolder of it).

    Raises:
        UserError: if a file is neither, or a folder lacks one of them.
    """
    parts = (
        Part("ViTDet", _looks_like_vitdet, partial(load_backbone, backbone)),
        Part("BERT", looks_like_bert, partial(load_bert, text_encoder)),
    )
    reports = load_parts(path, parts, PARTS_ADVICE, read_detectron2)
    missing_parts = [part.name for part in parts if part.name not in reports]
    if path.is_dir() and missing_parts:
        raise UserError(f"{path}: no {missing_parts[0]} checkpoint in it; {PARTS_ADVICE}, or give one file alone")
    for name in missing_parts:
        encoder = "visual" if name == "ViTDet" else "text"
        log.warning("%s: no %s; the %s encoder starts from random weights", path, name, encoder)
    return LoadReport.joined(reports.values())


def _looks_like_vitdet(state: Mapping[str, Tensor]) -> bool:
    return any(name.endswith("blocks.0.attn.qkv.weight") for name in state)


_GENERATOR = {
    "fc1_weight": "0.weight",
    "fc1_bias": "0.bias",
    "norm_weight": "1.gamma",
    "norm_bias": "1.beta",
    "fc2_weight": "3.weight",
    "fc2_bias": "3.bias",
}


def official_names(network: nn.Module, blocks: int) -> list[KeyEntry]:
    """The table: every parameter of the network and its name(s) in dcdcvgroup/vglaw-mindspore."""
    return [_official_name(name, blocks) for name, _ in network.named_parameters()]


def _official_name(name: str, blocks: int) -> KeyEntry:
    if name in ("weight_generator.S", "weight_generator.D"):
        return KeyEntry(name, (name,), trailing=1)
    if name.startswith("weight_generator.proj."):
        part = _GENERATOR[name.rsplit(".", 1)[-1]]
        return KeyEntry(name, tuple(f"weight_generator.proj.{block}.{part}" for block in range(blocks)))
    official = name
    if name.startswith("text_encoder."):
        official = official.replace("attention.self.", "attention.self_attn.").replace("LayerNorm", "layer_norm")
        if "_embeddings." in official:
            official = official.replace(".weight", ".embedding_table")
    # MindSpore's own layer norms; the up-sampling's channel norm is a module of the authors with plain names.
    if ".norm1." in name or ".norm2." in name or "LayerNorm" in name:
        official = official.replace(".weight", ".gamma").replace(".bias", ".beta")
    return KeyEntry(name, (official,))
