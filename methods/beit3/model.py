"""What the networks of SimVG and ALVG have in common, and the sizes they are described by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vgbench.layers.beit3 import BEiT3
from vgbench.layers.position import sine_position_2d

__all__ = ["BEiT3Network", "EncoderConfig", "HeadConfig"]


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of BEiT-3; the defaults are those of the base model.

    Attributes:
        width, layers, heads, ffn: base 768, 12, 12, 3072; large 1024, 24, 16, 4096.
        image_size, patch_size: S and patch side in pixels.
        vocab_size, max_text_positions: rows of the word and text position tables.
        drop_path: stochastic depth of the last layer.
        init: "official", or "scratch" for training without a checkpoint (see BEiT3).
        position_std: draw the image position codes with this standard deviation; None: leave them.
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    ffn: int = 3072
    image_size: int = 640
    patch_size: int = 32
    vocab_size: int = 64010
    max_text_positions: int = 1024
    drop_path: float = 0.1
    init: Literal["official", "scratch"] = "official"
    position_std: float | None = None


@dataclass(frozen=True)
class HeadConfig:
    """Sizes of what stands behind the encoder.

    Attributes:
        width, heads, ffn: width of the head, attention heads and ffn width of the decoder.
        decoder_layers: K.
        query_layers, query_ffn: depth and ffn width of the text-guided query generation.
        num_queries: Q; 1 for expressions with exactly one target.
        dropout: of everything behind the encoder.
    """

    width: int = 256
    heads: int = 8
    ffn: int = 2048
    decoder_layers: int = 3
    query_layers: int = 2
    query_ffn: int = 512
    num_queries: int = 1
    dropout: float = 0.1


class BEiT3Network(nn.Module):
    """``self.encoder``, and ``self.position`` [1, N, width], which codes the cells of its g x g ``self.grid``.

    A method inherits from its network: the authors' names and the shipped weights have no level above the encoder.
    """

    position: Tensor

    def __init__(self, encoder: EncoderConfig, head: HeadConfig) -> None:
        super().__init__()
        self.encoder_config, self.head_config = encoder, head
        self.encoder = BEiT3(
            encoder.width,
            encoder.layers,
            encoder.heads,
            encoder.ffn,
            encoder.image_size,
            encoder.patch_size,
            encoder.vocab_size,
            encoder.max_text_positions,
            encoder.drop_path,
            encoder.init,
        )
        self.draw_positions()
        self.grid = self.encoder.grid
        position = sine_position_2d(torch.zeros(1, self.grid, self.grid, dtype=torch.bool), head.width)
        self.register_buffer("position", position.flatten(2).transpose(1, 2), persistent=False)

    def draw_positions(self) -> None:
        """Draw the encoder's image position codes anew, if ``position_std`` says so."""
        if self.encoder_config.position_std is not None:
            nn.init.normal_(self.encoder.vision_position.weight, std=self.encoder_config.position_std)
