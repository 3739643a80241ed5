"""The options of VG-LAW and the network that they describe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vgbench.core.errors import UserError
from vgbench.layers.bert import Bert
from vgbench.layers.sizes import check_at_most, check_counts, check_multiple
from vgbench.layers.vitdet import ViTDet
from vgbench.methods.vglaw.model import VGLAWNetwork
from vgbench.text.wordpiece import WordPiece

SIZES = (
    *("image_size", "patch_size", "pretrain_image_size", "dim", "depth", "heads", "window_size", "max_tokens"),
    *("text_dim", "text_layers", "text_heads", "text_ffn", "max_positions"),
    *("rank", "gather_heads", "key_dim", "box_dim", "mask_dim"),
)
MULTIPLES = (
    ("image_size", "patch_size"),
    ("pretrain_image_size", "patch_size"),
    ("dim", "heads"),
    ("text_dim", "text_heads"),
    ("text_dim", "gather_heads"),
)


@dataclass(frozen=True)
class Options:
    """Arguments of :class:`~vgbench.methods.vglaw.VGLAW`; the defaults are the official sizes.

    Attributes:
        mode: "multitask" (box and mask) or "rec" (no mask head, no mask losses).
        image_size: side S of the square network input in pixels.
        patch_size: pixels per token side.
        dim: width of the visual encoder.
        depth: its blocks.
        heads: its attention heads.
        mlp_ratio: hidden width of its MLPs over ``dim``.
        window_size: side of the attention windows in tokens.
        global_blocks: blocks that attend over the whole image.
        pretrain_image_size: image size of the absolute position table.
        drop_path: stochastic-depth rate of the last block.
        norm_eps: epsilon of the visual encoder's norms (1e-5 is in effect in the official code, Detectron2 has 1e-6).
        tokenizer: BERT's ``vocab.txt`` or the folder that holds it, or a ready tokenizer.
        max_tokens: length of every token sequence, special tokens included.
        vocab_size: rows of the word table; None: the size of the tokenizer's vocabulary.
        text_dim: width of the text encoder.
        text_layers: its layers (the first six of BERT-base).
        text_heads: its attention heads.
        text_ffn: width of its feed-forward layers.
        max_positions: rows of its position table.
        text_dropout: dropout in the text encoder.
        rank: rank K of the generated increments.
        gather_heads: heads of the language gathering.
        key_dim: width of the pooling's query and keys.
        box_dim: hidden width of the box MLP.
        mask_dim: width between the mask head's two convolutions.
        mask_threshold: probability above which a pixel belongs to the mask.
        mask_cuts: further probabilities, in percent, at which masks are written besides (metric ``res/cut@N``).
        visual_lr: rate of the visual encoder over the base rate.
        text_lr: rate of the text encoder over the base rate.
        multi_scale: draw the training size around ``image_size`` and crop (an official flag that no script sets).
        flip_whole_words: exchange only whole words left and right at a flip (official: any substring).

    Raises:
        UserError: for an unknown mode, an impossible percentage, or sizes that no network can have.
    """

    mode: Literal["multitask", "rec"] = "multitask"
    image_size: int = 448
    patch_size: int = 16
    dim: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    window_size: int = 14
    global_blocks: Sequence[int] = (2, 5, 8, 11)
    pretrain_image_size: int = 224
    drop_path: float = 0.1
    norm_eps: float = 1e-5
    tokenizer: str | WordPiece | None = None
    max_tokens: int = 40
    vocab_size: int | None = 30522
    text_dim: int = 768
    text_layers: int = 6
    text_heads: int = 12
    text_ffn: int = 3072
    max_positions: int = 512
    text_dropout: float = 0.1
    rank: int = 32
    gather_heads: int = 12
    key_dim: int = 64
    box_dim: int = 256
    mask_dim: int = 256
    mask_threshold: float = 0.35
    mask_cuts: Sequence[int] = (50,)
    visual_lr: float = 0.1
    text_lr: float = 0.1
    multi_scale: bool = False
    flip_whole_words: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("multitask", "rec"):
            raise UserError(f"method.mode={self.mode}: VG-LAW has the modes multitask and rec")
        if not all(0 < percent < 100 for percent in self.mask_cuts):
            raise UserError(f"method.mask_cuts={list(self.mask_cuts)}: give percentages from 1 to 99")

        self._check_sizes()

    def _check_sizes(self) -> None:
        values = vars(self)
        check_counts(**{name: values[name] for name in SIZES})
        if self.vocab_size is not None:
            check_counts(vocab_size=self.vocab_size)
        for whole, part in MULTIPLES:
            check_multiple(**{whole: values[whole], part: values[part]})
        if self.tokenizer is not None:  # without one no text is read
            check_at_most(max_tokens=self.max_tokens, max_positions=self.max_positions)
        if not all(0 <= block < self.depth for block in self.global_blocks):
            raise UserError(f"method.global_blocks={list(self.global_blocks)}: give numbers from 0 to {self.depth - 1}")

    def network(self, vocab_size: int) -> VGLAWNetwork:
        """The network, with a word table of ``vocab_size`` rows."""
        return VGLAWNetwork(
            self._visual_encoder(),
            self._text_encoder(vocab_size),
            rank=self.rank,
            gather_heads=self.gather_heads,
            key_dim=self.key_dim,
            box_dim=self.box_dim,
            mask_dim=self.mask_dim if self.mode == "multitask" else None,
        )

    def _visual_encoder(self) -> ViTDet:
        return ViTDet(
            image_size=self.image_size,
            patch_size=self.patch_size,
            dim=self.dim,
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            window_size=self.window_size,
            global_blocks=self.global_blocks,
            pretrain_image_size=self.pretrain_image_size,
            drop_path=self.drop_path,
            norm_eps=self.norm_eps,
        )

    def _text_encoder(self, vocab_size: int) -> Bert:
        return Bert(
            vocab_size=vocab_size,
            hidden_size=self.text_dim,
            layers=self.text_layers,
            heads=self.text_heads,
            intermediate_size=self.text_ffn,
            max_positions=self.max_positions,
            dropout=self.text_dropout,
        )
