"""Checkpoints of AMC and ALBEF: nearly our own names, with older layouts and tied copies."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vgbench.checkpoints.names import LoadReport
from vgbench.core.errors import UserError
from vgbench.methods.amc.model import ALBEF, resize_positions

# Entries without effect: constants, ALBEF's single queue pointer (AMC's two start at 0), its image-id queue.
UNUSED = re.compile(r"text_encoder(_m)?\.bert\.embeddings\.position_ids|queue_ptr|idx_queue")

# What only training needs may be missing as a whole: an evaluation file, or ALBEF fine-tuned for retrieval.
PARTS = {
    "momentum model": re.compile(r"(visual_encoder|vision_proj|text_encoder|text_proj)_m\."),
    "MLM head": re.compile(r"text_encoder\.cls\."),
    "queues": re.compile(r"(image|text)_queue"),
    "pointers": re.compile(r"queue_ptr_(img|txt)"),
}
TRAINING_PARTS = {part: pattern for part, pattern in PARTS.items() if part != "MLM head"}  # left out of slim files
MOMENTUM_HEAD = re.compile(r"text_encoder_m\.cls\.")


def canonical(name: str) -> str:
    """Name in the layout of training checkpoints: evaluation files leave ``bert.`` out of the text encoder's names."""
    return re.sub(r"^(text_encoder(?:_m)?)\.(?!bert\.|cls\.)", r"\1.bert.", name)


def tied(name: str) -> str | None:
    """The parameter that ``name`` is a stored copy of (the MLM decoder shares weight and bias), or None."""
    match = re.fullmatch(r"(text_encoder(?:_m)?)\.cls\.predictions\.decoder\.(weight|bias)", name)
    if match is None:
        return None
    source = "bert.embeddings.word_embeddings.weight" if match[2] == "weight" else "cls.predictions.bias"
    return f"{match[1]}.{source}"


def load_albef(network: ALBEF, state: Mapping[str, Tensor]) -> LoadReport:
    """Load a whole model, strictly; position tables are resized to the network's grid.

    Missing as a whole may be: the momentum model (then copied from the model itself), the MLM heads, the queues and
    the pointers (then left as they are).

    Raises:
        UserError: for a missing or unknown name, another shape, or a tied copy that differs from its original.
    """
    own = network.state_dict()
    given = {canonical(name): (name, value) for name, value in state.items()}
    used, unused, adapted = [], [], []
    ready: dict[str, Tensor] = {}
    for name, (original, value) in given.items():
        source = tied(name)
        if UNUSED.fullmatch(name):
            unused.append(original)
        elif source is not None:
            if source in given and not torch.equal(value, given[source][1]):
                raise UserError(f"checkpoint entry {original!r} differs from {source!r}, with which it should be tied")
            unused.append(original)
        elif name not in own:
            raise UserError(f"checkpoint entry {original!r} belongs to no part of AMC; give an AMC or ALBEF checkpoint")
        else:
            if name.endswith("pos_embed") and value.ndim == 3 and value.shape[1] != own[name].shape[1]:
                side = round((own[name].shape[1] - 1) ** 0.5)
                value = resize_positions(value.float(), (side, side))
                adapted.append(original)
            if value.shape != own[name].shape:
                raise UserError(
                    f"checkpoint entry {original!r} has shape {list(value.shape)}, this configuration of AMC has "
                    f"{list(own[name].shape)}; set the sizes of method to those of the checkpoint"
                )
            ready[name] = value
            used.append(original)
    missing = set(own) - set(ready)
    absent = {part for part, pattern in PARTS.items() if not any(map(pattern.match, ready))}
    for part in absent:
        missing = {name for name in missing if not PARTS[part].match(name)}
    if not any(map(MOMENTUM_HEAD.match, ready)):
        missing = {name for name in missing if not MOMENTUM_HEAD.match(name)}
    if missing:
        first = min(missing)
        raise UserError(f"checkpoint lacks {first!r} and {len(missing) - 1} more entries of AMC; it is incomplete")
    with torch.no_grad():
        for name, value in ready.items():
            own[name].copy_(value)
    if "momentum model" in absent:
        network.update_momentum(0.0)
    return LoadReport(tuple(used), tuple(unused), tuple(adapted), tuple(sorted(absent)))
