"""Loading through explicit tables of names, strictly."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from vgbench.core.errors import UserError
from vgbench.core.registry import methods


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint loader did: every key of the file is in exactly one list.

    Attributes:
        used: keys whose values reached a parameter or buffer.
        unused: keys on the method's documented list of keys without effect.
        adapted: used keys whose shape had to be changed (interpolated position tables and the like).
        absent: parts of the model that only training needs and that the file lacks; they start anew.
    """

    used: tuple[str, ...]
    unused: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    @classmethod
    def joined(cls, reports: Iterable[LoadReport]) -> LoadReport:
        """One report of several files."""
        reports = list(reports)
        return cls(*(tuple(key for r in reports for key in getattr(r, field.name)) for field in fields(cls)))


@dataclass(frozen=True)
class KeyEntry:
    """One parameter or buffer of ours and where it comes from.

    Attributes:
        ours: name in our module.
        official: official names; several are concatenated along the first dimension, in equal parts.
        trailing: number of trailing dimensions of size 1 that the official tensor has in addition (1x1 convolutions
            that are linear layers here).
    """

    ours: str
    official: tuple[str, ...]
    trailing: int = 0


# Models of other people that are no methods here, the most specific first: (pattern of a telling key, description).
FOREIGN_SIGNATURES = {
    "beit3.encoder.*": "a BEiT-3 pre-training checkpoint (that is for pretrained=)",
    "*relation_embedding*": "a graph-based grounding checkpoint",
    "transformer.encoder.layers.*": "a DETR checkpoint",
    "*backbone.net.pos_embed": "a ViTDet checkpoint",
    "*bert.embeddings.word_embeddings.weight": "a BERT checkpoint",
    "*embeddings.word_embeddings.weight": "a BERT checkpoint",
    "*blocks.0.attn.qkv.weight": "a vision Transformer (ViT)",
    "*layer1.0.conv1.weight": "a ResNet",
    "*visual.transformer.*": "a CLIP checkpoint",
}


def method_signatures() -> dict[str, str]:
    """``checkpoint_signatures`` of all registered methods, longer patterns (the more specific ones) first."""
    signatures = {key: text for name in methods for key, text in methods.load(name).checkpoint_signatures.items()}
    return dict(sorted(signatures.items(), key=lambda item: -len(item[0])))


def describe_state(names: Collection[str]) -> str:
    """What a state dict looks like, judged by its names: "a ResNet", "a BEiT-3 pre-training checkpoint", ..."""
    for pattern, description in {**method_signatures(), **FOREIGN_SIGNATURES}.items():
        if any(fnmatch.fnmatchcase(name, pattern) for name in names):
            return description
    first = next(iter(names), None)
    return f"an unknown model whose first key is {first!r}" if first else "an empty state dict"


def load_mapped(
    module: nn.Module,
    state: Mapping[str, Tensor],
    entries: Sequence[KeyEntry],
    expected: str,
    unused: Iterable[str] = (),
    adapted: tuple[str, ...] = (),
) -> LoadReport:
    """Load ``state`` (official names) into ``module`` through a table of names, strictly.

    Args:
        module: owner of all names ``entry.ours``.
        state: official tensors.
        entries: the table.
        expected: what the file should be, for messages ("an official ALVG checkpoint").
        unused: patterns of official names that are known to have no effect.
        adapted: names whose shape the caller has changed; passed through to the report.

    Raises:
        UserError: if a key is missing, unknown or of a wrong shape. Nothing is loaded then.
    """
    unused = tuple(unused)
    own = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    official_names = {name for entry in entries for name in entry.official}
    missing_names = [name for entry in entries for name in entry.official if name not in state]
    if missing_names:
        raise UserError(
            f"expected {expected}, but this looks like {describe_state(state)}: "
            f"{len(missing_names)} of {len(official_names)} keys are missing, the first is {missing_names[0]!r}"
        )
    ignored = [name for name in state if name not in official_names]
    unknown_names = [name for name in ignored if not any(fnmatch.fnmatchcase(name, pattern) for pattern in unused)]
    if unknown_names:
        raise UserError(
            f"expected {expected}, but this looks like {describe_state(state)}: "
            f"{len(unknown_names)} keys are unknown, the first is {unknown_names[0]!r}"
        )
    values = {}
    for entry in entries:
        parts = [state[name] for name in entry.official]
        target = own[entry.ours]
        value = torch.cat(parts) if len(parts) > 1 else parts[0]
        if entry.trailing and value.shape[-entry.trailing :] == (1,) * entry.trailing:
            value = value.flatten(-entry.trailing - 1)
        if value.shape != target.shape:
            raise UserError(
                f"{expected} does not fit this configuration: {entry.official[0]!r} is {list(parts[0].shape)}, which "
                f"gives {list(value.shape)} where the model has {list(target.shape)}; take the sizes of the checkpoint"
            )
        values[entry.ours] = value
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)
    return LoadReport(
        used=tuple(name for name in state if name in official_names), unused=tuple(ignored), adapted=adapted
    )


def export_mapped(tensors: Mapping[str, Tensor | None], entries: Sequence[KeyEntry]) -> dict[str, Tensor]:
    """Our tensors (a state dict, or gradients by parameter name) under their official names and shapes.

    Entries whose tensor is absent or None are left out.
    """
    exported = {}
    for entry in entries:
        value = tensors.get(entry.ours)
        if value is None:
            continue
        value = value.detach().reshape(value.shape + (1,) * entry.trailing)
        parts = value.chunk(len(entry.official)) if len(entry.official) > 1 else (value,)
        for name, part in zip(entry.official, parts, strict=True):
            exported[name] = part.clone()
    return exported
