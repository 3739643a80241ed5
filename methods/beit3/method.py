"""What SimVG and ALVG have in common as methods: BEiT-3 with its inputs, optimiser groups and checkpoints."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from vgbench.checkpoints.names import KeyEntry, LoadReport, load_mapped
from vgbench.checkpoints.read import read_checkpoint
from vgbench.layers.beit3 import adapt_own_size, adapt_size, load_beit3
from vgbench.layers.sizes import check_at_most, check_counts, check_depths, check_multiple
from vgbench.method import GroundingMethod
from vgbench.methods.beit3.criterion import SetCriterion
from vgbench.methods.beit3.model import BEiT3Network, EncoderConfig, HeadConfig
from vgbench.methods.beit3.transforms import LargeScaleJitter, stretched
from vgbench.text.sentencepiece import BEiT3Tokenizer
from vgbench.types import Transform

__all__ = ["BEiT3Method"]

OFFICIAL_ENCODER = "vis_enc.beit3."  # prefix of the encoder's names in the authors' checkpoints
UNUSED_POSITIONS = 2  # rows of the text position table that come before the first token's (fairseq)
POSITIONS = ("vision_position.weight", "embed_positions.A.weight")  # image position table, our name and the authors'


class BEiT3Method(GroundingMethod, BEiT3Network):
    """A grounding method on top of a network around BEiT-3: ``class SimVG(BEiT3Method, SimVGNetwork)``.

    Every argument but the last is an option of the methods' configurations; the sizes go to the network as
    :class:`~.model.EncoderConfig` and :class:`~.model.HeadConfig`.

    Args:
        tokenizer: path of the SentencePiece model (officially ``beit3.spm``).
        image_size, patch_size: S and patch side in pixels; the input is stretched to S x S.
        max_tokens: L, bos and eos included.
        encoder_width, encoder_layers, encoder_heads, encoder_ffn: BEiT-3 base 768, 12, 12, 3072; large 1024, 24,
            16, 4096.
        vocab_size, max_text_positions: rows of the encoder's word and text position tables.
        drop_path: stochastic depth of the last encoder layer.
        width, heads, ffn: width of the head, attention heads and ffn width of the decoder.
        decoder_layers: K.
        query_layers, query_ffn: depth and ffn width of the text-guided query generation.
        num_queries: Q; 1 for expressions with exactly one target.
        class_weight, no_object_weight: of the classification term, and of "no object" in it (see SetCriterion).
        dropout: of everything behind the encoder.
        jitter: large-scale jitter in training, for boxes of single targets.
        encoder_lr: learning rate of the encoder as a share of the others'.
        encoder_init: "official", or "scratch" for training without a checkpoint (see BEiT3).
        position_std: draw the encoder's image position codes with this standard deviation, also in place of those of
            a pretrained encoder; None: leave them. Next to patches that nobody pretrained small codes are lost, and
            a class token that reads where things are learns nothing.
        network: further arguments of the network that a method inherits from; no option of a configuration.
    """

    file_options = frozenset({"tokenizer"})
    required_files = frozenset({"tokenizer"})
    skips_parameters = False

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
        class_weight: float = 1.0,
        no_object_weight: float = 0.1,
        dropout: float = 0.1,
        jitter: bool = False,
        encoder_lr: float = 0.1,
        encoder_init: Literal["official", "scratch"] = "official",
        position_std: float | None = None,
        *,
        network: Mapping[str, Any],
    ) -> None:
        check_counts(image_size=image_size, patch_size=patch_size, max_tokens=max_tokens, vocab_size=vocab_size)
        check_counts(encoder_width=encoder_width, encoder_heads=encoder_heads, encoder_ffn=encoder_ffn)
        check_counts(width=width, heads=heads, ffn=ffn, query_ffn=query_ffn, num_queries=num_queries)
        check_counts(decoder_layers=decoder_layers)
        check_depths(encoder_layers=encoder_layers, query_layers=query_layers)
        check_multiple(image_size=image_size, patch_size=patch_size)
        check_multiple(encoder_width=encoder_width, encoder_heads=encoder_heads)
        check_multiple(width=width, heads=heads)
        check_at_most(spare=UNUSED_POSITIONS, max_tokens=max_tokens, max_text_positions=max_text_positions)
        head = HeadConfig(width, heads, ffn, decoder_layers, query_layers, query_ffn, num_queries, dropout)
        encoder = EncoderConfig(
            width=encoder_width,
            layers=encoder_layers,
            heads=encoder_heads,
            ffn=encoder_ffn,
            image_size=image_size,
            patch_size=patch_size,
            vocab_size=vocab_size,
            max_text_positions=max_text_positions,
            drop_path=drop_path,
            init=encoder_init,
            position_std=position_std,
        )
        super().__init__(encoder, head, **network)
        self.tokenizer_path = tokenizer
        self._tokenizer: BEiT3Tokenizer | None = None
        self.image_size, self.max_tokens, self.num_queries = image_size, max_tokens, num_queries
        self.jitter = jitter
        self.encoder_lr = encoder_lr
        self.criterion = SetCriterion(class_weight=class_weight, no_object_weight=no_object_weight)

    @abstractmethod
    def official_names(self) -> list[KeyEntry]:
        """Table of names, ours and the authors'."""

    @abstractmethod
    def unread_keys(self) -> tuple[str, ...]:
        """Names and patterns of the authors' keys that this model does not read."""

    @abstractmethod
    def heads_to_compile(self) -> Iterable[nn.Module]:
        """What is worth compiling behind the encoder."""

    def compiled_blocks(self) -> Iterable[nn.Module]:
        return (*self.encoder.layers, *self.heads_to_compile())

    def checkpointed_blocks(self) -> Iterable[nn.Module]:
        return self.encoder.layers

    def idle(self) -> tuple[str, ...]:
        """Prefixes of our names of the parameters that no loss reaches."""
        return ()

    def train_transform(self) -> Transform:
        return stretched(self.image_size, LargeScaleJitter(self.image_size) if self.jitter else None)

    def eval_transform(self) -> Transform:
        return stretched(self.image_size)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        if self._tokenizer is None:
            self._tokenizer = BEiT3Tokenizer.from_option(
                self.tokenizer_path, self.max_tokens, self.encoder_config.vocab_size
            )
        return self._tokenizer(texts)

    @property
    def text_shape(self) -> tuple[int, int]:
        return self.max_tokens, self.encoder_config.vocab_size

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        """The encoder at its own rate ("vis_enc"), everything else at ``lr``."""
        named = [(name, parameter) for name, parameter in self.named_parameters() if not name.startswith(self.idle())]
        encoder = [parameter for name, parameter in named if name.startswith("encoder.")]
        rest = [parameter for name, parameter in named if not name.startswith("encoder.")]
        return [
            {"name": "vis_enc", "params": encoder, "lr": lr * self.encoder_lr},
            {"name": "rest", "params": rest, "lr": lr},
        ]

    def load_official(self, state: Mapping[str, Tensor]) -> LoadReport:
        state, adapted = adapt_size(state, self.encoder, OFFICIAL_ENCODER)
        what = f"an official {self.name} checkpoint"
        return load_mapped(self, state, self.official_names(), what, self.unread_keys(), adapted)

    def load_pretrained(self, path: Path) -> LoadReport:
        """Load the encoder from a BEiT-3 file of its authors, or from a model that was trained here."""
        report = load_beit3(self.encoder, read_checkpoint(path, ema=False), path)
        if self.encoder_config.position_std is None:
            return report
        self.draw_positions()
        drawn = tuple(key for key in report.used + report.adapted if key.endswith(POSITIONS))
        used, adapted = (tuple(key for key in keys if key not in drawn) for keys in (report.used, report.adapted))
        return replace(report, used=used, adapted=adapted, unused=report.unused + drawn)

    def adapt_state(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return adapt_own_size(state, self.encoder)
