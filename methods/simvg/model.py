"""SimVG: BEiT-3 fuses image, text and an object token; boxes come from a decoder branch and from a token branch.

Paper: Dai et al., "SimVG: A Simple Framework for Visual Grounding with Decoupled Multi-modal Fusion", NeurIPS 2024
(arXiv 2409.17531). Official code: Dmmm1997/SimVG, commit 29df6a45. Symbols: B batch, L text tokens, S input side,
N patches, C encoder width, D head width, Q queries (1: one target per expression), K decoder layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vgbench.checkpoint import load_mapped, read_checkpoint
from vgbench.errors import UserError
from vgbench.layers.beit3 import BEiT3, EncoderOutput, adapt_own_size, adapt_size, load_beit3
from vgbench.layers.criterion import SetCriterion, Targets, name_layers
from vgbench.layers.heads import NO_TARGET_SCORE, PredictionHead, detections, ranked_predictions
from vgbench.layers.position import sine_position_2d
from vgbench.layers.transformer import DecoderLayer, QueryGenerator, TextPooling
from vgbench.method import Batch, GroundingMethod, LoadReport, Prediction, Transform
from vgbench.methods.simvg.checkpoint import DECODER_ONLY, UNUSED, official_keys
from vgbench.methods.simvg.loss import distillation_targets
from vgbench.text import BEiT3Tokenizer
from vgbench.transforms import LargeScaleJitter, stretched

__all__ = ["BRANCHES", "Outputs", "SimVG"]

BRANCHES = ("decoder", "token")


class Decoder(nn.Module):
    """K chained post-norm layers; every layer's output is normalised by one shared LayerNorm, and not fed back."""

    def __init__(self, layers: int, width: int, heads: int, ffn_width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([DecoderLayer(width, heads, ffn_width) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, query: Tensor, keys: Tensor, memory: Tensor, pad: Tensor | None) -> Tensor:
        """query [B, Q, D], keys and memory [B, N, D], pad [B, N] bool or None -> [K, B, Q, D]."""
        t = torch.zeros_like(query)
        hidden = []
        for layer in self.layers:
            t = layer(t, query, keys, memory, pad)
            hidden.append(self.norm(t))
        return torch.stack(hidden)


@dataclass
class Branch:
    """A branch's output: hidden [K, B, Q, D], logits [K, B, Q, 2], boxes [K, B, Q, 4] normalised cxcywh."""

    hidden: Tensor
    logits: Tensor
    boxes: Tensor


@dataclass
class Outputs:
    """Output of the network; K = 1 for the token branch, and a branch that was not asked for is None."""

    encoded: EncoderOutput
    text_pool: Tensor
    query: Tensor
    size: Tensor
    position: Tensor | None = None
    decoder: Branch | None = None
    token: Branch | None = None


class SimVG(GroundingMethod):
    """SimVG for single-target (``num_queries=1``) and multi-target expressions.

    The stages differ in their weights only: one stage and stage 2 learn both branches, stage 1 and pre-training the
    decoder branch alone (``token_weight=distill_weight=0``).

    Args:
        tokenizer: path of the SentencePiece model (officially ``beit3.spm``).
        image_size, patch_size: S and patch side in pixels; the input is stretched to S x S.
        max_tokens: L, bos and eos included.
        encoder_width, encoder_layers, encoder_heads, encoder_ffn: BEiT-3 base 768, 12, 12, 3072; large 1024, 24,
            16, 4096.
        vocab_size, max_text_positions: rows of the encoder's word and text position tables.
        drop_path: stochastic depth of the last encoder layer.
        width, heads, ffn: D, attention heads and ffn width of the decoder.
        decoder_layers: K.
        query_layers, query_ffn: depth and ffn width of the text-guided query generation.
        num_queries: Q.
        text_pooling: see :func:`vgbench.layers.transformer.pool_text`.
        decoder_weight: weight of the decoder branch's loss.
        token_weight, distill_weight: weights of the token branch's losses against the truth and against the
            decoder's boxes (balanced by 1 - W and W).
        branches: what :meth:`predict` runs. Without "decoder" the model has no decoder at all: for inference only.
        jitter: large-scale jitter in training, for single-target data.
        encoder_lr: learning rate of the encoder as a share of the others'.
        encoder_init: "official", or "scratch" for training without a checkpoint (see BEiT3).
    """

    name: ClassVar[str] = "SimVG"
    tasks: ClassVar[frozenset[str]] = frozenset({"rec", "grec"})
    set_labels: ClassVar[Mapping[str, str]] = {"decoder": "SimVG-DB", "token": "SimVG-TB"}
    wants_masks = False

    def __init__(
        self,
        tokenizer: str | Path | None = None,
        image_size: int = 640,
        patch_size: int = 32,
        max_tokens: int = 20,
        encoder_width: int = 768,
        encoder_layers: int = 12,
        encoder_heads: int = 12,
        encoder_ffn: int = 3072,
        vocab_size: int = 64010,
        max_text_positions: int = 1024,
        drop_path: float = 0.1,
        width: int = 256,
        heads: int = 8,
        ffn: int = 2048,
        decoder_layers: int = 3,
        query_layers: int = 2,
        query_ffn: int = 512,
        num_queries: int = 1,
        text_pooling: TextPooling = "official",
        decoder_weight: float = 1.0,
        token_weight: float = 2.0,
        distill_weight: float = 1.0,
        branches: Sequence[str] = BRANCHES,
        jitter: bool = False,
        encoder_lr: float = 0.1,
        encoder_init: Literal["official", "scratch"] = "official",
    ) -> None:
        super().__init__()
        unknown = [branch for branch in branches if branch not in BRANCHES]
        if unknown or not branches:
            raise UserError(f"method.branches={list(branches)}: choose from {', '.join(BRANCHES)}")
        self.tokenizer_path = tokenizer
        self._tokenizer: BEiT3Tokenizer | None = None
        self.image_size = image_size
        self.max_tokens = max_tokens
        self.vocab_size = vocab_size
        self.num_queries = num_queries
        self.decoder_weight = decoder_weight
        self.token_weight = token_weight
        self.distill_weight = distill_weight
        self.jitter = jitter
        self.encoder_lr = encoder_lr
        self.learns_token = token_weight > 0 or distill_weight > 0
        # A token branch that is not learnt has nothing to say.
        chosen = tuple(branch for branch in BRANCHES if branch in branches)
        self.prediction_sets = chosen if self.learns_token or chosen == ("token",) else ("decoder",)  # type: ignore[misc]
        self.criterion = SetCriterion()

        self.encoder = BEiT3(
            encoder_width,
            encoder_layers,
            encoder_heads,
            encoder_ffn,
            image_size,
            patch_size,
            vocab_size,
            max_text_positions,
            drop_path,
            encoder_init,
        )
        self.text_proj = nn.Linear(encoder_width, width)
        self.cls_proj = nn.Linear(encoder_width, width)
        self.query_generator = QueryGenerator(width, heads, query_ffn, query_layers, num_queries, text_pooling)
        self.token_proj = nn.Linear(width, width)
        self.token_head = PredictionHead(width)
        self.image_proj: nn.Linear | None = None
        self.decoder: Decoder | None = None
        self.decoder_head: PredictionHead | None = None
        if "decoder" in branches:
            self.image_proj = nn.Linear(encoder_width, width)  # a 1x1 convolution in the official code
            self.decoder = Decoder(decoder_layers, width, heads, ffn)
            self.decoder_head = PredictionHead(width)
        grid = self.encoder.grid
        position = sine_position_2d(torch.zeros(1, grid, grid, dtype=torch.bool), width)
        self.position: Tensor
        self.register_buffer("position", position.flatten(2).transpose(1, 2), persistent=False)  # [1, N, D]

    # inputs ----------------------------------------------------------------------------------------------------

    def train_transform(self) -> Transform:
        return stretched(self.image_size, LargeScaleJitter(self.image_size) if self.jitter else None)

    def eval_transform(self) -> Transform:
        return stretched(self.image_size)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        if self._tokenizer is None:
            self._tokenizer = BEiT3Tokenizer.from_option(self.tokenizer_path, self.max_tokens, self.vocab_size)
        return self._tokenizer(texts)

    @property
    def text_shape(self) -> tuple[int, int]:
        return self.max_tokens, self.vocab_size

    # network ---------------------------------------------------------------------------------------------------

    def network(self, batch: Batch, branches: Sequence[str]) -> Outputs:
        """The forward pass of the named branches."""
        encoded = self.encoder(batch.image, batch.text_ids, batch.text_pad)
        query, pooled = self.query_generator(self.text_proj(encoded.text), batch.text_pad)
        outputs = Outputs(encoded, pooled, query, self._valid_size(batch))
        if "decoder" in branches:
            if self.decoder is None or self.image_proj is None or self.decoder_head is None:
                raise UserError(
                    "method.branches is without decoder; train and run it with method.branches=[decoder,token]"
                )
            memory = self.image_proj(encoded.image)
            position, pad = self.position, None
            if batch.image_pad is not None:
                cells = batch.image_pad[:, :: self.encoder.patch_size, :: self.encoder.patch_size]
                position = sine_position_2d(cells, memory.shape[-1]).flatten(2).transpose(1, 2)
                pad = cells.flatten(1)
            hidden = self.decoder(query, memory + position, memory, pad)
            outputs.position = position
            outputs.decoder = Branch(hidden, *self.decoder_head(hidden))
        if "token" in branches:
            hidden = self.token_proj(self.cls_proj(encoded.cls)[:, None] + query)[None]
            outputs.token = Branch(hidden, *self.token_head(hidden))
        return outputs

    def _valid_size(self, batch: Batch) -> Tensor:
        """(width, height) of the valid input, [2] or, with padding right and below, [B, 2]."""
        if batch.image_pad is None:
            return batch.image.new_full((2,), self.image_size, dtype=torch.float32)
        valid = ~batch.image_pad
        return torch.stack([valid[:, 0].sum(-1), valid[:, :, 0].sum(-1)], dim=-1).float()

    # training --------------------------------------------------------------------------------------------------

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

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        idle: tuple[str, ...] = ()
        if not self.learns_token:
            idle += ("cls_proj.", "token_proj.", "token_head.")
        if not self.decoder_weight:  # its boxes teach the token branch, but no gradient comes back
            idle += ("image_proj.", "decoder.", "decoder_head.")
        named = [(name, parameter) for name, parameter in self.named_parameters() if not name.startswith(idle)]
        encoder = [parameter for name, parameter in named if name.startswith("encoder.")]
        rest = [parameter for name, parameter in named if not name.startswith("encoder.")]
        return [
            {"name": "vis_enc", "params": encoder, "lr": lr * self.encoder_lr},
            {"name": "rest", "params": rest, "lr": lr},
        ]

    # inference -------------------------------------------------------------------------------------------------

    def predict(self, batch: Batch) -> dict[str, list[Prediction]]:
        outputs = self.network(batch, self.prediction_sets)
        many = self.num_queries > 1
        sets = {}
        for name in self.prediction_sets:
            branch: Branch = getattr(outputs, name)
            boxes, scores = detections(branch.logits[-1], branch.boxes[-1], outputs.size)
            limit = NO_TARGET_SCORE if many else None
            sets[name] = ranked_predictions(boxes, scores, batch.geometry, many, limit)
        return sets

    # checkpoints -----------------------------------------------------------------------------------------------

    def official_keys(self) -> list[Any]:
        """Table of names, ours and the authors'."""
        decoder_layers = None if self.decoder is None else len(self.decoder.layers)
        return official_keys(len(self.encoder.layers), len(self.query_generator.layers), decoder_layers)

    def load_official(self, state: Mapping[str, Tensor]) -> LoadReport:
        state, adapted = adapt_size(state, self.encoder, "vis_enc.beit3.")
        unused = UNUSED if self.decoder is not None else UNUSED + DECODER_ONLY
        return load_mapped(self, state, self.official_keys(), "an official SimVG checkpoint", unused, adapted)

    def load_pretrained(self, path: Path) -> LoadReport:
        return load_beit3(self.encoder, read_checkpoint(path, ema=False), path)

    def adapt_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        state = adapt_own_size(state, self.encoder)
        if self.decoder is None:  # the token branch alone
            unread = ("image_proj.", "decoder.", "decoder_head.")
            state = {name: value for name, value in state.items() if not name.startswith(unread)}
        return state
