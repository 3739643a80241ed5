"""The options of AMC, and the configurations of its parts that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vgbench.batches.transforms import Interpolation
from vgbench.core.errors import UserError
from vgbench.layers.sizes import check_counts, check_multiple
from vgbench.methods.amc.step import ConsistencyConfig, StepConfig, Words
from vgbench.methods.amc.text import TextConfig
from vgbench.methods.amc.vision import INIT_STD, VisionConfig
from vgbench.text.wordpiece import WordPiece

SIZES = (
    *("image_size", "eval_size", "patch_size", "max_words", "train_max_words", "max_tokens", "max_positions"),
    *("vision_width", "vision_depth", "vision_heads", "text_width", "text_layers", "text_heads", "text_ffn"),
    *("embed_dim", "queue_size"),
)
MULTIPLES = (
    ("image_size", "patch_size"),
    ("eval_size", "patch_size"),
    ("vision_width", "vision_heads"),
    ("text_width", "text_heads"),
)


@dataclass(frozen=True)
class Options:
    """Arguments of :class:`~vgbench.methods.amc.AMC`.

    Attributes:
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
        alpha: weight of the momentum model's targets; rises from 0 during epoch 0 (:meth:`.method.AMC.on_step`).
        gradcam_layer: layer (from 0, over all BERT layers) whose cross-attention map is explained.
        itc_block: ViT block whose self-attention map is explained by ``heat="itc"``.
        margin_mean, margin_max, weight_mean, weight_max: margins and weights of the two AMC terms.
        mlm_distill_axis: "tokens" (official AMC code) or "vocabulary" (ALBEF), see
            :func:`vgbench.methods.amc.loss.masked_language`.

    Raises:
        UserError: if two of them contradict each other.
    """

    tokenizer: str | None = None
    proposals: str | None = None
    heat_box: bool = False
    heat: Literal["itm", "itc"] = "itm"
    image_size: int = 256
    eval_size: int = 384
    eval_resize: Interpolation = "pillow_bicubic"
    max_words: int = 30
    train_max_words: int = 50
    max_tokens: int = 25
    mask_consistency: bool = True
    augmentation: Literal["amc", "albef", "flip"] = "amc"
    fix_saturation: bool = False
    swap_left_right: bool = False
    mask_all: bool = False
    patch_size: int = 16
    vision_width: int = 768
    vision_depth: int = 12
    vision_heads: int = 12
    vision_mlp_ratio: float = 4.0
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12
    text_ffn: int = 3072
    max_positions: int = 512
    vocab_size: int | None = 30522
    fusion_layer: int = 6
    dropout: float = 0.1
    init_std: float = INIT_STD
    position_std: float | None = None
    embed_dim: int = 256
    queue_size: int = 65536
    pad_id: int = 0
    cls_id: int = 101
    mask_id: int = 103
    momentum: float = 0.995
    alpha: float = 0.4
    gradcam_layer: int = 8
    itc_block: int = 8
    margin_mean: float = 0.1
    margin_max: float = 0.5
    weight_mean: float = 0.2
    weight_max: float = 0.8
    mlm_distill_axis: Literal["tokens", "vocabulary"] = "tokens"

    def __post_init__(self) -> None:
        values = vars(self)
        check_counts(**{name: values[name] for name in SIZES})
        if self.vocab_size is not None:
            check_counts(vocab_size=self.vocab_size)
        for whole, part in MULTIPLES:
            check_multiple(**{whole: values[whole], part: values[part]})
        if not self.fusion_layer <= self.gradcam_layer < self.text_layers:
            raise UserError(
                f"method.gradcam_layer={self.gradcam_layer} is no fusion layer; give {self.fusion_layer} to "
                f"{self.text_layers - 1}"
            )
        if self.heat == "itc" and self.itc_block >= self.vision_depth:
            raise UserError(f"method.itc_block={self.itc_block} is too large; give 0 to {self.vision_depth - 1}")

    def words(self, tokenizer: WordPiece | None) -> Words:
        """Size of the vocabulary and special ids: the tokenizer's, where there is one.

        Raises:
            UserError: if the vocabulary lacks [MASK], or nothing says how large it is.
        """
        if tokenizer is None:
            if self.vocab_size is None:
                raise UserError("method.vocab_size is null and there is no vocabulary; set method.tokenizer")
            return Words(self.vocab_size, self.pad_id, self.cls_id, self.mask_id)
        if tokenizer.mask_id is None:
            raise UserError(f"{self.tokenizer}: the vocabulary lacks [MASK], which AMC needs; use BERT's vocab.txt")
        size = len(tokenizer) if self.vocab_size is None else self.vocab_size
        return Words(size, tokenizer.pad_id, tokenizer.cls_id, tokenizer.mask_id)

    def vision(self) -> VisionConfig:
        return VisionConfig(
            image_size=self.image_size,
            patch_size=self.patch_size,
            width=self.vision_width,
            depth=self.vision_depth,
            heads=self.vision_heads,
            mlp_ratio=self.vision_mlp_ratio,
            init_std=self.init_std,
            position_std=self.position_std,
        )

    def text(self, words: Words) -> TextConfig:
        return TextConfig(
            vocab_size=words.vocab_size,
            max_positions=self.max_positions,
            width=self.text_width,
            layers=self.text_layers,
            heads=self.text_heads,
            ffn=self.text_ffn,
            fusion_layer=self.fusion_layer,
            vision_width=self.vision_width,
            pad_id=words.pad_id,
            dropout=self.dropout,
            init_std=self.init_std,
        )

    def step(self, words: Words) -> StepConfig:
        terms = ConsistencyConfig(
            layer=self.gradcam_layer,
            margin_mean=self.margin_mean,
            margin_max=self.margin_max,
            weight_mean=self.weight_mean,
            weight_max=self.weight_max,
        )
        return StepConfig(words, self.momentum, self.mlm_distill_axis, terms if self.mask_consistency else None)
