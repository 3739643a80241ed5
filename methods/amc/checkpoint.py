"""Checkpoints of AMC and ALBEF: nearly our own names, with older layouts and tied copies."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from vgbench.checkpoints.names import LoadReport
from vgbench.core.errors import UserError
from vgbench.core.published import PublishedFile
from vgbench.methods.amc.model import ALBEF
from vgbench.methods.amc.vision import resize_positions
from vgbench.text.wordpiece import BERT_VOCABULARY

_ALBEF = "https://storage.googleapis.com/sfr-pcl-data-research/ALBEF"  # https://github.com/salesforce/ALBEF
_TRAINED = "https://drive.google.com/drive/folders/1syngIWXbySzbcb7lZnmoL7_-H6RAeb3H"  # README of the authors
PUBLISHED = (
    BERT_VOCABULARY,
    PublishedFile("ALBEF.pth", "start weights, 14M images", "pretrained", f"{_ALBEF}/ALBEF.pth"),
    PublishedFile("best_refcoco.pth", "trained model, RefCOCO+", "checkpoint", _TRAINED),
    PublishedFile("best_flickr.pth", "trained model, Flickr30k", "checkpoint", _TRAINED),
    PublishedFile("best_refclef.pth", "trained model, ReferItGame", "checkpoint", _TRAINED),
    PublishedFile(
        "dets.json", "proposals for RefCOCO+, in refcoco+/ of the archive", "method.proposals", f"{_ALBEF}/data.tar.gz"
    ),
)

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


def official_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Our name of every entry of an official file -> its name there.

    Ours are those of training checkpoints; evaluation files leave ``bert.`` out of the text encoder's names.
    """
    return {re.sub(r"^(text_encoder(?:_m)?)\.(?!bert\.|cls\.)", r"\1.bert.", name): name for name in state}


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
    parameters = network.state_dict()
    names = official_names(state)
    used, unused, adapted = [], [], []
    ready: dict[str, Tensor] = {}
    for name, original in names.items():
        source = tied(name)
        if source in names and not torch.equal(state[original], state[names[source]]):
            raise UserError(f"checkpoint entry {original!r} differs from {source!r}, with which it should be tied")
        if source is not None or UNUSED.fullmatch(name):
            unused.append(original)
            continue
        if name not in parameters:
            raise UserError(f"checkpoint entry {original!r} belongs to no part of AMC; give an AMC or ALBEF checkpoint")
        ready[name] = fitted(name, state[original], parameters[name])
        if ready[name] is not state[original]:
            adapted.append(original)
        if ready[name].shape != parameters[name].shape:
            raise UserError(
                f"checkpoint entry {original!r} has shape {list(state[original].shape)}, this configuration of AMC has "
                f"{list(parameters[name].shape)}; set the sizes of method to those of the checkpoint"
            )
        used.append(original)
    absent = absent_parts(parameters, ready)
    with torch.no_grad():
        for name, value in ready.items():
            parameters[name].copy_(value)
    if "momentum model" in absent:
        network.update_momentum(0.0)
    return LoadReport(tuple(used), tuple(unused), tuple(adapted), tuple(sorted(absent)))


def fitted(name: str, value: Tensor, target: Tensor) -> Tensor:
    """``value`` itself, or a position table of another grid resized to the network's."""
    if not name.endswith("pos_embed") or value.ndim != 3 or value.shape[1] == target.shape[1]:
        return value
    side = round((target.shape[1] - 1) ** 0.5)
    return resize_positions(value.float(), (side, side))


def absent_parts(own: Collection[str], ready: Collection[str]) -> set[str]:
    """The parts of :data:`PARTS` that the entries ``ready`` lack as a whole.

    Raises:
        UserError: if other entries of the network's ``own`` are missing.
    """
    absent = {part for part, pattern in PARTS.items() if not any(map(pattern.match, ready))}
    optional = [PARTS[part] for part in absent]
    if not any(map(MOMENTUM_HEAD.match, ready)):
        optional.append(MOMENTUM_HEAD)
    missing = {name for name in set(own) - set(ready) if not any(pattern.match(name) for pattern in optional)}
    if missing:
        first = min(missing)
        raise UserError(f"checkpoint lacks {first!r} and {len(missing) - 1} more entries of AMC; it is incomplete")
    return absent
