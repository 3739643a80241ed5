"""AMC as a method of the suite: training step, Grad-CAM prediction, checkpoints."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from vgbench.batches.transforms import Interpolation
from vgbench.checkpoints.names import LoadReport
from vgbench.checkpoints.read import read_checkpoint
from vgbench.core.errors import UserError
from vgbench.method import GroundingMethod
from vgbench.methods.amc import heat as decisions
from vgbench.methods.amc import loss as losses
from vgbench.methods.amc.checkpoint import TRAINING_PARTS, load_albef
from vgbench.methods.amc.model import ALBEF, INIT_STD, TextEncoder, VisionEncoder
from vgbench.methods.amc.transforms import EvalTransform, TrainTransform, box_masks
from vgbench.text.wordpiece import WordPiece
from vgbench.types import Batch, Prediction, Transform

LOSS_NAMES = ("mlm", "ita", "itm", "gcam_masked1", "gcam_masked2", "gcam_masked", "total")


class AMC(GroundingMethod):
    """ALBEF with attention mask consistency.

    Source: "Improving Visual Grounding by Encouraging Consistent Gradient-based Explanations", arXiv 2206.15462;
    official repository uvavision/AMC-grounding, base model salesforce/ALBEF (arXiv 2107.07651).

    Args:
        tokenizer: WordPiece vocabulary (``vocab.txt``, or its folder); the official one is bert-base-uncased's.
        proposals: json file of a detector's boxes (:func:`vgbench.methods.amc.heat.read_proposals`); with it,
            predictions carry the proposals ranked by accumulated heat.
        heat_box: also give a prediction set ``heat_box`` whose boxes come from the heat map itself. NOT part of AMC.
        heat: what is explained: "itm", the matching score (published numbers), or "itc", the contrastive similarity.
        image_size: training resolution, pixels; the position table is made for it.
        eval_size: evaluation resolution (384 on RefCOCO+ and ReferIt, 256 on Flickr30k).
        eval_resize: "pillow_bicubic" (RefCOCO+, ReferIt) or "opencv" (Flickr30k).
        max_words: words kept of an expression in evaluation (30; 50 on Flickr30k).
        train_max_words: words kept of a caption in training.
        max_tokens: ids kept of a caption in training, [CLS] included.
        mask_consistency: the two AMC loss terms; False trains plain ALBEF.
        augmentation: "amc" (resize, flip, gray, colour jitter), "albef" (random crop, flip, RandAugment) or "flip"
            (resize, flip: words of colour stay true).
        fix_saturation: fix of the official colour jitter, see :func:`vgbench.methods.amc.transforms.colour_jitter`.
        swap_left_right: exchange left and right in the captions of flipped images (official: not done).
        mask_all: the union of an entry's boxes as the mask instead of one drawn box.
        patch_size, vision_width, vision_depth, vision_heads, vision_mlp_ratio: the ViT.
        text_width, text_layers, text_heads, text_ffn, max_positions, vocab_size: BERT; vocab_size null takes the
            size of the tokenizer's vocabulary.
        fusion_layer: number of text layers before the fusion layers.
        dropout: in BERT.
        init_std: standard deviation of initial weights; the official 0.02 is meant for a width of 768.
        position_std: of the initial position table of the image; None: ``init_std``.
        embed_dim, queue_size: width of the contrastive features, and how many are kept.
        pad_id, cls_id, mask_id: special ids; the tokenizer's own are taken where there is a tokenizer.
        momentum: of the momentum model.
        alpha: weight of the momentum model's targets; rises from 0 during epoch 0 (:meth:`on_step`).
        gradcam_layer: layer (from 0, over all BERT layers) whose cross-attention map is explained.
        itc_block: ViT block whose self-attention map is explained by ``heat="itc"``.
        margin_mean, margin_max, weight_mean, weight_max: margins and weights of the two AMC terms.
        mlm_distill_axis: "tokens" (official AMC code) or "vocabulary" (ALBEF), see
            :func:`vgbench.methods.amc.loss.masked_language`.
    """

    name = "AMC"
    tasks = frozenset({"rec", "pointing"})
    checkpoint_signatures: ClassVar[Mapping[str, str]] = {
        "visual_encoder_m.*": "an ALBEF/AMC checkpoint",
        "text_encoder.*": "an ALBEF/AMC checkpoint",
    }
    requires_grad_at_inference = True
    file_options = frozenset({"tokenizer", "proposals"})
    wants_masks = False  # the rectangular masks of the loss are made from the boxes

    def __init__(
        self,
        tokenizer: str | None = None,
        proposals: str | None = None,
        heat_box: bool = False,
        heat: Literal["itm", "itc"] = "itm",
        image_size: int = 256,
        eval_size: int = 384,
        eval_resize: Interpolation = "pillow_bicubic",
        max_words: int = 30,
        train_max_words: int = 50,
        max_tokens: int = 25,
        mask_consistency: bool = True,
        augmentation: Literal["amc", "albef", "flip"] = "amc",
        fix_saturation: bool = False,
        swap_left_right: bool = False,
        mask_all: bool = False,
        patch_size: int = 16,
        vision_width: int = 768,
        vision_depth: int = 12,
        vision_heads: int = 12,
        vision_mlp_ratio: float = 4.0,
        text_width: int = 768,
        text_layers: int = 12,
        text_heads: int = 12,
        text_ffn: int = 3072,
        max_positions: int = 512,
        vocab_size: int | None = 30522,
        fusion_layer: int = 6,
        dropout: float = 0.1,
        init_std: float = INIT_STD,
        position_std: float | None = None,
        embed_dim: int = 256,
        queue_size: int = 65536,
        pad_id: int = 0,
        cls_id: int = 101,
        mask_id: int = 103,
        momentum: float = 0.995,
        alpha: float = 0.4,
        gradcam_layer: int = 8,
        itc_block: int = 8,
        margin_mean: float = 0.1,
        margin_max: float = 0.5,
        weight_mean: float = 0.2,
        weight_max: float = 0.8,
        mlm_distill_axis: Literal["tokens", "vocabulary"] = "tokens",
    ) -> None:
        super().__init__()
        for key, side in (("image_size", image_size), ("eval_size", eval_size)):
            if side % patch_size:
                raise UserError(f"method.{key}={side} is no multiple of method.patch_size={patch_size}; change one")
        if not fusion_layer <= gradcam_layer < text_layers:
            raise UserError(
                f"method.gradcam_layer={gradcam_layer} is no fusion layer; give {fusion_layer} to {text_layers - 1}"
            )
        if heat == "itc" and itc_block >= vision_depth:
            raise UserError(f"method.itc_block={itc_block} is too large; give 0 to {vision_depth - 1}")
        self._tokenizer = None if tokenizer is None else WordPiece.from_file(tokenizer, sep=False)
        if self._tokenizer is not None:
            if self._tokenizer.mask_id is None:
                raise UserError(f"{tokenizer}: the vocabulary lacks [MASK], which AMC needs; use BERT's vocab.txt")
            pad_id, cls_id, mask_id = self._tokenizer.pad_id, self._tokenizer.cls_id, self._tokenizer.mask_id
            vocab_size = len(self._tokenizer) if vocab_size is None else vocab_size
            if len(self._tokenizer) > vocab_size:
                raise UserError(
                    f"method.vocab_size={vocab_size} is smaller than the {len(self._tokenizer)} pieces of {tokenizer}"
                )
        if vocab_size is None:
            raise UserError("method.vocab_size is null and there is no vocabulary; set method.tokenizer")
        self._proposals = None if proposals is None else decisions.read_proposals(Path(proposals))
        # Without boxes to rank there is nothing to score as REC.
        self.tasks = frozenset({"rec", "pointing"} if proposals or heat_box else {"pointing"})
        if heat_box:
            self.outputs = ("main", "heat_box")
            # Point of "main" and boxes of "heat_box"; also boxes of "main" where there are proposals to rank.
            points = {} if proposals else {"main": frozenset({"pointing"})}
            self.output_tasks = {"heat_box": frozenset({"rec", "phrase"}), **points}
        self.heat = heat
        self.image_size, self.eval_size, self.eval_resize = image_size, eval_size, eval_resize
        self.max_words, self.train_max_words, self.max_tokens = max_words, train_max_words, max_tokens
        self.max_positions = max_positions
        self.mask_consistency = mask_consistency
        self.augmentation, self.fix_saturation = augmentation, fix_saturation
        self.swap_left_right, self.mask_all = swap_left_right, mask_all
        self.pad_id, self.cls_id, self.mask_id, self.vocab_size = pad_id, cls_id, mask_id, vocab_size
        self.patch_size = patch_size
        self.momentum, self.full_alpha = momentum, alpha
        self.gradcam_layer, self.itc_block = gradcam_layer, itc_block
        self.margin_mean, self.margin_max = margin_mean, margin_max
        self.weight_mean, self.weight_max = weight_mean, weight_max
        self.mlm_distill_axis: Literal["tokens", "vocabulary"] = mlm_distill_axis
        self.network = ALBEF(
            VisionEncoder(
                image_size,
                patch_size,
                vision_width,
                vision_depth,
                vision_heads,
                vision_mlp_ratio,
                init_std,
                position_std,
            ),
            TextEncoder(
                vocab_size,
                max_positions,
                text_width,
                text_heads,
                text_layers,
                fusion_layer,
                text_ffn,
                vision_width,
                pad_id,
                dropout,
                init_std,
            ),
            text_width,
            embed_dim,
            queue_size,
        )
        # A tensor, so that a compiled training step is not compiled again whenever it changes.
        self.register_buffer("alpha", torch.tensor(alpha), persistent=False)

    alpha: Tensor

    # ---- inputs

    @property
    def variant(self) -> str:
        """What a leaderboard adds to the name; plain ALBEF is a row of its own."""
        return "" if self.mask_consistency else "without mask consistency"

    @property
    def text_shape(self) -> tuple[int, int]:
        return self.max_tokens, self.vocab_size

    def train_transform(self) -> Transform:
        return TrainTransform(
            self.image_size,
            self.train_max_words,
            self._shorten,
            self.augmentation,
            self.fix_saturation,
            self.swap_left_right,
            self.mask_all,
        )

    def _shorten(self, text: str) -> str:
        """A caption cut to ``max_tokens`` ids; whole without a vocabulary (speed is measured without one)."""
        return text if self._tokenizer is None else self._tokenizer.truncate(text, self.max_tokens - 1)

    def eval_transform(self) -> Transform:
        return EvalTransform(self.eval_size, self.eval_resize, self.max_words)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """``[CLS] pieces`` without ``[SEP]``, padded to the longest text.

        Training captions were cut by the transform; nothing else is, except at the end of the position table.
        """
        tokenizer = self._tokenizer or WordPiece.from_file(None)  # which says what to set
        return tokenizer(texts, max_length=self.max_positions, pad_to_max=False)

    # ---- training

    def on_step(self, epoch: int, step: int, steps_per_epoch: int) -> None:
        """Set alpha: rises linearly from 0 over the steps of epoch 0."""
        self.alpha.fill_(self.full_alpha * (min(1.0, step / steps_per_epoch) if epoch == 0 else 1.0))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """One training step's losses: ``mlm``, ``ita``, ``itm``, ``gcam_masked1`` (mean margin), ``gcam_masked2``
        (maximum margin), ``gcam_masked`` (their weighted sum) and ``total``.

        Every call is a training step, whatever the dropout mode: it clamps the temperature, updates the momentum
        model and writes the batch into the queues (gathered over all processes, which need equal batch sizes).
        ``batch.masks`` holds the box masks that :meth:`train_transform` makes (None: taken from ``batch.boxes``); a
        sample without a valid target, or with an empty mask, takes no part in the AMC terms.
        """
        masks = batch.masks
        if masks is None:
            size = (batch.image.shape[-2], batch.image.shape[-1])
            masks = box_masks(batch.boxes.flatten(0, 1), size).unflatten(0, batch.valid.shape)
        mask = (masks * batch.valid[..., None, None]).amax(1)
        result = self.training_losses(batch.image, batch.text_ids, batch.text_pad, mask)
        return {name: result[name] for name in LOSS_NAMES if name in result}

    def training_losses(
        self,
        image: Tensor,
        ids: Tensor,
        pad: Tensor,
        mask: Tensor,
        selected: Tensor | None = None,
        negatives: tuple[Tensor, Tensor] | None = None,
        masked_words: tuple[Tensor, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Losses and everything on the way to them.

        Args:
            image: [B, 3, S, S] normalised.
            ids, pad: [B, L] int64 and bool (True = padding).
            mask: [B, H, W], 1 inside the box.
            selected: [B] bool, samples of the AMC terms; None: those whose mask is not empty.
            negatives: indices (image for each text, text for each image) [B], else drawn.
            masked_words: (masked ids, labels) [B, L], else drawn.
        """
        network, alpha, count = self.network, self.alpha, len(image)
        if count < 2:
            raise UserError("AMC needs at least two pairs per process and step; set recipe.batch_size=2 or more")
        network.clamp_temperature()
        image_embeds = network.visual_encoder(image)
        text_embeds = network.text_encoder.text(ids, pad)
        image_feat, text_feat = network.image_feature(image_embeds), network.text_feature(text_embeds)
        with torch.no_grad():
            network.update_momentum(self.momentum)
            image_embeds_m = network.visual_encoder_m(image)
            image_feat_m = network.image_feature(image_embeds_m, momentum=True)
            text_feat_m = network.text_feature(network.text_encoder_m.text(ids, pad), momentum=True)
        ita = losses.contrastive(
            image_feat,
            text_feat,
            image_feat_m,
            text_feat_m,
            network.image_queue,
            network.text_queue,
            network.temp,
            alpha,
        )
        network.enqueue(image_feat_m, text_feat_m)

        if self.mask_consistency:
            fusion_pos, logits_pos, attention, gradient = self._explained(text_embeds, pad, image_embeds)
        else:
            fusion_pos, _ = network.text_encoder.fuse(text_embeds, pad, image_embeds)
            logits_pos = network.match(fusion_pos)
        images, texts = negatives or losses.draw_negatives(ita.sim_i2t, ita.sim_t2i)
        same = torch.arange(count, device=image.device)
        fusion_neg, _ = network.text_encoder.fuse(
            torch.cat([text_embeds, text_embeds[texts]]),
            torch.cat([pad, pad[texts]]),
            image_embeds,
            index=torch.cat([images, same]),
        )
        itm_logits = torch.cat([logits_pos, network.match(fusion_neg)])

        masked, labels = masked_words or losses.mask_words(ids, self.vocab_size, self.pad_id, self.cls_id, self.mask_id)
        mlm_logits = network.text_encoder.masked_words(masked, pad, image_embeds)
        with torch.no_grad():
            mlm_logits_m = network.text_encoder_m.masked_words(masked, pad, image_embeds_m)

        result = {
            "image_embeds": image_embeds,
            "image_embeds_m": image_embeds_m,
            "text_embeds": text_embeds,
            "image_feat": image_feat,
            "text_feat": text_feat,
            "image_feat_m": image_feat_m,
            "text_feat_m": text_feat_m,
            "sim_i2t": ita.sim_i2t,
            "sim_t2i": ita.sim_t2i,
            "fusion_pos": fusion_pos,
            "fusion_neg": fusion_neg,
            "itm_logits": itm_logits,
            "mlm_logits": mlm_logits,
            "mlm_logits_m": mlm_logits_m,
            "mlm": losses.masked_language(mlm_logits, mlm_logits_m, labels, alpha, self.mlm_distill_axis),
            "ita": ita.loss,
            "itm": losses.matching(itm_logits),
        }
        result["total"] = result["mlm"] + result["ita"] + result["itm"]
        if self.mask_consistency:
            heat = losses.normalise_map(losses.gradcam(attention, gradient, pad, self._grid(image)))
            if selected is None:
                selected = (mask > 0).flatten(1).any(1)
            terms = losses.consistency(heat, mask, selected, self.margin_mean, self.margin_max)
            gcam = self.weight_mean * terms.mean_margin + self.weight_max * terms.max_margin
            result |= {
                "cross_attention_map": attention,
                "cross_attention_grad": gradient,
                "gradcam_normalised": heat,
                "gradcam_upsampled": terms.upsampled,
                "gcam_masked1": terms.mean_margin,
                "gcam_masked2": terms.max_margin,
                "gcam_masked": gcam,
                "total": result["total"] + gcam,
            }
        return result

    # torch.compile has no double backward, so everything between the map and the score stays eager.
    @torch.compiler.disable
    def _explained(self, text: Tensor, pad: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Positive fusion pass: hidden [B, L, D], matching logits [B, 2], A and its gradient G [B, heads, L, 1 + N].

        G is part of the graph: the AMC terms differentiate through A and G.
        """
        hidden, attention = self.network.text_encoder.fuse(text, pad, image, keep=self.gradcam_layer)
        assert attention is not None
        logits = self.network.match(hidden)
        (gradient,) = torch.autograd.grad(logits[:, 1].sum(), attention, create_graph=True)
        return hidden, logits, attention, gradient

    def _grid(self, image: Tensor) -> tuple[int, int]:
        return image.shape[-2] // self.patch_size, image.shape[-1] // self.patch_size

    # ---- prediction

    def explain_matching(
        self, images: Tensor, image_index: Tensor, text_ids: Tensor, text_pad: Tensor
    ) -> dict[str, Tensor]:
        """Grad-CAM of the matching score on the cross-attention of ``gradcam_layer``.

        Args:
            images: [I, 3, H, W]; each is encoded once.
            image_index: [B] int64, the image of each expression.
            text_ids, text_pad: [B, L].

        Returns:
            ``gradcam`` [B, h, w] (not normalised), ``cross_attention_map`` and ``cross_attention_grad``
            [B, heads, L, 1 + N] (float32), ``itm_logits`` [B, 2], ``fusion`` [B, L, D], ``image_embeds``
            [I, 1 + N, vision width].
        """
        network = self.network
        with torch.no_grad():
            image_embeds = network.visual_encoder(images)
            text_embeds = network.text_encoder.text(text_ids, text_pad)
        with torch.enable_grad():
            fusion, attention = network.text_encoder.fuse(
                text_embeds, text_pad, image_embeds, index=image_index, keep=self.gradcam_layer, cut=True
            )
            assert attention is not None
            logits = network.match(fusion)
            (gradient,) = torch.autograd.grad(logits[:, 1].sum(), attention)
        attention = attention.detach()
        return {
            "gradcam": losses.gradcam(attention, gradient, text_pad, self._grid(images)),
            "cross_attention_map": attention,
            "cross_attention_grad": gradient,
            "itm_logits": logits.detach(),
            "fusion": fusion.detach(),
            "image_embeds": image_embeds,
        }

    def explain_similarity(
        self, images: Tensor, image_index: Tensor, text_ids: Tensor, text_pad: Tensor
    ) -> dict[str, Tensor]:
        """Grad-CAM of the contrastive similarity on the self-attention of ViT block ``itc_block``, class-token row.

        Arguments as for :meth:`explain_matching`; ``gradcam`` [B, h, w], not normalised.
        """
        network = self.network
        with torch.no_grad():
            text = network.text_feature(network.text_encoder.text(text_ids, text_pad))
        with torch.enable_grad():
            tokens, attention = network.visual_encoder.with_attention(images, image_index, self.itc_block)
            similarity = (network.image_feature(tokens) * text).sum(1) / network.temp.detach()
            (gradient,) = torch.autograd.grad(similarity.sum(), attention)
        heat = (attention.detach() * gradient.clamp(min=0))[:, :, 0, 1:].mean(1)
        return {"gradcam": heat.unflatten(1, self._grid(images))}

    def heatmaps(self, images: Tensor, image_index: Tensor, text_ids: Tensor, text_pad: Tensor) -> Tensor:
        """Heat maps [B, h, w] float32 of B expressions over I images; arguments as for :meth:`explain_matching`."""
        explain = self.explain_matching if self.heat == "itm" else self.explain_similarity
        return explain(images, image_index, text_ids, text_pad)["gradcam"]

    def predict(self, batch: Batch, outputs: Sequence[str] | None = None) -> dict[str, list[Prediction]]:
        """Heat map, its peak, and ranked proposals where there are any.

        Expressions of the batch that have the same ``image_ids`` entry share one encoding of the image.
        """
        first, index = _shared_images(batch)
        heat = self.heatmaps(
            batch.image[first], index.to(batch.image.device), batch.text_ids, batch.text_pad
        ).cpu()  # decisions are made per sample at the original size, on the CPU
        sets: dict[str, list[Prediction]] = {name: [] for name in outputs or self.outputs}
        for number, geometry in enumerate(batch.geometry):
            full = decisions.enlarge(heat[number], geometry.size)
            candidates = torch.zeros(0, 4)
            if self._proposals is not None and batch.image_ids:
                candidates = self._proposals.get(batch.image_ids[number], candidates)
            for name in sets:
                proposals = decisions.heat_boxes(full) if name == "heat_box" else candidates
                boxes, scores = decisions.rank(full, proposals)
                sets[name].append(
                    Prediction(boxes=boxes, scores=scores, point=decisions.peak(full), heatmap=heat[number])
                )
        return sets

    # ---- optimiser and checkpoints

    def compiled_blocks(self) -> Iterable[nn.Module]:
        network = self.network
        for vision in (network.visual_encoder, network.visual_encoder_m):
            yield from vision.blocks
        for text in (network.text_encoder, network.text_encoder_m):
            yield from text.bert.encoder.layer

    def checkpointed_blocks(self) -> Iterable[nn.Module]:
        return self.network.visual_encoder.blocks

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """``decay`` (the optimiser's weight decay) and ``no_decay`` (1-D tensors and biases).

        Position table, class token, embeddings and the scalar temperature are decayed, as in the official code. The
        momentum model has no place here.
        """
        groups: dict[str, list[torch.nn.Parameter]] = {"decay": [], "no_decay": []}
        for name, parameter in self.network.named_parameters():
            if parameter.requires_grad:
                plain = parameter.ndim == 1 or name.endswith(".bias")
                groups["no_decay" if plain else "decay"].append(parameter)
        return [
            {"name": "decay", "params": groups["decay"], "lr": lr},
            {"name": "no_decay", "params": groups["no_decay"], "lr": lr, "weight_decay": 0.0},
        ]

    def training_part(self, name: str) -> str | None:
        """Momentum model, queues and their pointers; the MLM head stays, nothing could stand in for it."""
        own = name.removeprefix("network.")
        return next((part for part, pattern in TRAINING_PARTS.items() if pattern.match(own)), None)

    def renew(self, parts: Collection[str]) -> None:
        """The momentum model starts as a copy; queues and pointers are as they were built."""
        if "momentum model" in parts:
            self.network.update_momentum(0.0)

    def load_official(self, state: Mapping[str, Tensor]) -> LoadReport:
        """A checkpoint of AMC (845 entries) or ALBEF (844), with or without ``bert.`` in the names of the text layers.

        See :func:`vgbench.methods.amc.checkpoint.load_albef` for what may be missing and what has no effect.
        """
        return load_albef(self.network, state)

    def load_pretrained(self, path: Path) -> LoadReport:
        """``ALBEF.pth`` (14M images), the start of the official training."""
        return self.load_official(read_checkpoint(path))


def _shared_images(batch: Batch) -> tuple[list[int], Tensor]:
    """Rows of the batch with the distinct images, and for every row the number of its image among them [B]."""
    if len(batch.image_ids) != len(batch):
        return list(range(len(batch))), torch.arange(len(batch))
    place: dict[int, int] = {}
    first: list[int] = []
    index = []
    for row, image_id in enumerate(batch.image_ids):
        if image_id not in place:
            place[image_id] = len(first)
            first.append(row)
        index.append(place[image_id])
    return first, torch.tensor(index)
