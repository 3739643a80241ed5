"""SimVG: BEiT-3 fuses image, text and an object token; boxes come from a decoder branch and from a token branch.

Paper: Dai et al., "SimVG: A Simple Framework for Visual Grounding with Decoupled Multi-modal Fusion", NeurIPS 2024
(arXiv 2409.17531). Official code: Dmmm1997/SimVG, commit 29df6a45. Symbols: B batch, L text tokens, S input side,
N patches, C encoder width, D head width, Q queries (1: one target per expression), K decoder layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vgbench.checkpoints.names import KeyEntry
from vgbench.core.errors import UserError
from vgbench.methods.beit3.criterion import Targets, name_layers
from vgbench.methods.beit3.heads import detections, ranked_predictions
from vgbench.methods.beit3.method import BEiT3Method
from vgbench.methods.beit3.queries import TextPooling
from vgbench.methods.simvg.checkpoint import DECODER_ONLY, PUBLISHED, UNUSED, official_names
from vgbench.methods.simvg.loss import distillation_targets
from vgbench.methods.simvg.model import BRANCHES, Outputs, SimVGNetwork
from vgbench.predictions.table import GREC_SCORE_THRESHOLD
from vgbench.types import Batch, Prediction

DECODER = ("image_proj.", "decoder.", "decoder_head.")  # prefixes of what only the decoder branch needs


class SimVG(BEiT3Method, SimVGNetwork):
    """SimVG for single-target (``num_queries=1``) and multi-target expressions.

    The stages differ in their weights only: one stage and stage 2 learn both branches, stage 1 and pre-training the
    decoder branch alone (``token_weight=distill_weight=0``).

    Besides the options of :class:`vgbench.methods.beit3.method.BEiT3Method`:

    Args:
        text_pooling: see :func:`vgbench.methods.beit3.queries.pool_text`.
        decoder_weight: weight of the decoder branch's loss.
        token_weight, distill_weight: weights of the token branch's losses against the truth and against the
            decoder's boxes (balanced by 1 - W and W).
        branches: what :meth:`predict` runs. Without "decoder" the model has no decoder at all: for inference only.
    """

    name: ClassVar[str] = "SimVG"
    tasks = frozenset({"rec", "grec"})
    published_files = PUBLISHED
    checkpoint_signatures: ClassVar[Mapping[str, str]] = {
        "head.input_cls_proj.*": "a SimVG checkpoint",
        "vis_enc.beit3.*": "a checkpoint of the SimVG family",
    }
    output_labels: Mapping[str, str] = {"decoder": "SimVG-DB", "token": "SimVG-TB"}
    wants_masks = False

    def __init__(
        self,
        *,
        text_pooling: TextPooling = "official",
        decoder_weight: float = 1.0,
        token_weight: float = 2.0,
        distill_weight: float = 1.0,
        branches: Sequence[str] = BRANCHES,
        **shared: Any,
    ) -> None:
        unknown = [branch for branch in branches if branch not in BRANCHES]
        if unknown or not branches:
            raise UserError(f"method.branches={list(branches)}: choose from {', '.join(BRANCHES)}")
        super().__init__(network={"text_pooling": text_pooling, "with_decoder": "decoder" in branches}, **shared)
        self.decoder_weight = decoder_weight
        self.token_weight = token_weight
        self.distill_weight = distill_weight
        self.learns_token = token_weight > 0 or distill_weight > 0
        # A token branch that is not learnt has nothing to say.
        outputs = tuple(branch for branch in BRANCHES if branch in branches)
        self.outputs = outputs if self.learns_token or outputs == ("token",) else ("decoder",)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.losses(self.network(batch, BRANCHES if self.learns_token else ("decoder",)), batch)

    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """All terms.

        ``total = loss_dgt + loss_tgt + loss_kd``: the decoder branch against the truth, the token branch against the
        truth (times 1 - W) and against the decoder's boxes (times W). ``decoder.*``, ``token_gt.*`` and ``token_kd.*``
        are their terms before the branch weights (suffix ``_i``: layer i before the last); ``loss_distill_w`` is W.
        """
        decoder, token = outputs.decoder, outputs.token
        assert decoder is not None
        targets = Targets.from_pixels(batch.boxes, batch.valid, outputs.size)
        assignment = self.criterion.match(decoder.logits, decoder.boxes, targets)
        total = batch.boxes.new_zeros(())
        losses: dict[str, Tensor] = {}
        if self.decoder_weight:
            terms = self.criterion(decoder.logits, decoder.boxes, targets, assignment)
            losses |= {f"decoder.{name}": value for name, value in name_layers(terms).items()}
            losses["loss_dgt"] = self.decoder_weight * torch.stack(list(terms.values())).sum()
            total = total + losses["loss_dgt"]
        if token is not None and self.learns_token:
            taught, _, mean = distillation_targets(decoder.logits[-1], decoder.boxes[-1], targets, assignment[-1])
            for prefix, name, weight, truth in (
                ("token_gt", "loss_tgt", self.token_weight * (1 - mean), targets),
                ("token_kd", "loss_kd", self.distill_weight * mean, taught),
            ):
                terms = self.criterion(token.logits, token.boxes, truth)
                losses |= {f"{prefix}.{term}": value for term, value in name_layers(terms).items()}
                losses[name] = weight * torch.stack(list(terms.values())).sum()
                total = total + losses[name]
            losses["loss_distill_w"] = mean
        return losses | {"total": total}

    def heads_to_compile(self) -> Iterable[nn.Module]:
        heads = (self.query_generator, self.decoder, self.decoder_head, self.token_head)
        return (head for head in heads if head is not None)

    def idle(self) -> tuple[str, ...]:
        prefixes: tuple[str, ...] = ()
        if not self.learns_token:
            prefixes += ("cls_proj.", "token_proj.", "token_head.")
        if not self.decoder_weight:  # its boxes teach the token branch, but no gradient comes back
            prefixes += DECODER
        return prefixes

    def predict(self, batch: Batch, outputs: Sequence[str] | None = None) -> dict[str, list[Prediction]]:
        names = tuple(outputs or self.outputs)
        output = self.network(batch, names)
        many = self.num_queries > 1
        limit = GREC_SCORE_THRESHOLD if many else None
        predictions = {}
        for name in names:
            branch = output.branch(name)
            boxes, scores = detections(branch.logits[-1], branch.boxes[-1], output.size)
            predictions[name] = ranked_predictions(boxes, scores, batch.geometry, many, limit)
        return predictions

    def official_names(self) -> list[KeyEntry]:
        decoder_layers = None if self.decoder is None else len(self.decoder.layers)
        return official_names(len(self.encoder.layers), len(self.query_generator.layers), decoder_layers)

    def unread_keys(self) -> tuple[str, ...]:
        return UNUSED if self.decoder is not None else UNUSED + DECODER_ONLY

    def adapt_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        state = super().adapt_state(state)
        if self.decoder is None:  # the token branch alone
            state = {name: value for name, value in state.items() if not name.startswith(DECODER)}
        return state
