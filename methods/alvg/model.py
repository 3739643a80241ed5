"""ALVG's network (B batch, N = g * g grid cells, E head width, Q queries, K decoder layers)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgbench.layers.beit3 import EncoderOutput
from vgbench.methods.beit3.decoder import DecoderParts
from vgbench.methods.beit3.heads import PredictionHead
from vgbench.methods.beit3.model import BEiT3Network, EncoderConfig, HeadConfig
from vgbench.methods.beit3.queries import QueryGenerator
from vgbench.types import Batch


@dataclass
class Outputs:
    """Everything the losses, the predictions and the pictures are made of.

    Attributes:
        encoded: BEiT-3's output.
        text_pool: [B, E].
        query: [B, Q, E].
        memory: [B, N, E], enhanced features.
        score: [B, g, g] relevance in (0, 2), None without image enhancement.
        attention: [K, B, Q, g, g] decoder cross-attention, None where nothing needs it.
        hidden: [K, B, Q, E].
        logits: [K, B, Q, 2], class 0 = target.
        boxes: [K, B, Q, 4] normalised cxcywh.
        mask_logits: [B, 8g, 8g] of the foreground, None without masks.
    """

    encoded: EncoderOutput
    text_pool: Tensor
    query: Tensor
    memory: Tensor
    score: Tensor | None
    attention: Tensor | None
    hidden: Tensor
    logits: Tensor
    boxes: Tensor
    mask_logits: Tensor | None

    @property
    def mask(self) -> Tensor | None:
        """[B, 8g, 8g] foreground probability, None without masks."""
        return None if self.mask_logits is None else self.mask_logits.sigmoid()


class ImageEnhancement(nn.Module):
    """ImgEnhance: weight every image token by its standardised cosine relevance to the pooled text."""

    def __init__(self, width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.image_proj = nn.Linear(width, width)
        self.text_proj = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """image [B, N, E] with its position code, text [B, E] -> memory [B, N, E] and score [B, N] in (0, 2).

        The score is ``2 sigmoid(z)``, z the cosine standardised over the N tokens of a sample (unbiased deviation).
        """
        v = self.dropout(self.image_proj(image)).float()
        w = self.dropout(self.text_proj(text)).float()
        cosine = (F.normalize(v, dim=-1, eps=1e-12) * F.normalize(w, dim=-1, eps=1e-12)[:, None]).sum(-1)
        variance, mean = torch.var_mean(cosine, dim=-1, keepdim=True)
        # The tiny term only matters where all tokens are equally relevant, which would be 0 / 0.
        score = 2 * ((cosine - mean) * (variance + 1e-20).rsqrt()).sigmoid()
        return score[..., None] * v, score


class ParallelLayer(DecoderParts):
    """One decoder layer; its target is zero and its cross-attention residual contains the query position."""

    def forward(self, query: Tensor, keys: Tensor, memory: Tensor, maps: bool) -> tuple[Tensor, Tensor | None]:
        zero = torch.zeros_like(query)
        y = self.norm_self(self.dropout(self.self_attn(query, query, zero, need_weights=False)[0]))
        s = y + query
        a, attention = self.cross_attn(s, keys, memory, need_weights=maps)
        x = self.norm_cross(s + self.dropout(a))
        ffn = self.linear2(self.dropout(self.linear1(x).relu()))
        return self.norm_ffn(x + self.dropout(ffn)), attention


class ParallelDecoder(nn.Module):
    """K layers side by side: every layer starts from the same zero target, none reads another's output."""

    def __init__(self, layers: int, width: int, heads: int, ffn_width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.layers = nn.ModuleList([ParallelLayer(width, heads, ffn_width, dropout) for _ in range(layers)])

    def forward(self, query: Tensor, keys: Tensor, memory: Tensor, maps: bool) -> tuple[Tensor, Tensor | None]:
        """Decode.

        Args:
            query: [B, Q, E], the query position.
            keys: [B, N, E], memory with position code.
            memory: [B, N, E].
            maps: return the attention maps too.

        Returns:
            Hidden states [K, B, Q, E], and the cross-attention averaged over heads [K, B, Q, N] (in training after
            its dropout, as the attention loss wants it) or None.
        """
        hidden, attention = zip(*(layer(query, keys, memory, maps) for layer in self.layers), strict=True)
        return torch.stack(hidden), torch.stack(attention) if maps else None


class MaskHead(nn.Module):
    """Convolutions that bring the grid to 8 times its side: one foreground map per expression."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        a, b, c = channels, channels // 2, channels // 4
        self.refine = nn.Conv2d(width, a, 3, padding=1, bias=False)
        self.refine_norm = nn.BatchNorm2d(a)
        self.up1 = nn.ConvTranspose2d(a, b, 4, 2, 1)
        self.norm1 = nn.BatchNorm2d(b)
        self.up2 = nn.ConvTranspose2d(b, c, 4, 2, 1)
        self.norm2 = nn.BatchNorm2d(c)
        self.up3 = nn.ConvTranspose2d(c, 1, 4, 2, 1)
        nn.init.kaiming_uniform_(self.refine.weight, a=1)

    def forward(self, features: Tensor) -> Tensor:
        """features [B, E, g, g] -> logits of the foreground [B, 8g, 8g], float32."""
        x = self.refine_norm(self.refine(features)).relu()
        x = self.norm1(self.up1(x)).relu()
        x = self.norm2(self.up2(x)).relu()
        return self.up3(x)[:, 0].float()


class ALVGNetwork(BEiT3Network):
    """Encoder, query generation, image enhancement, decoder and mask head.

    Args:
        encoder, head: sizes.
        mask_channels: channels after the mask head's first convolution.
        enhance: with the image enhancement module.
    """

    def __init__(
        self, encoder: EncoderConfig, head: HeadConfig, mask_channels: int = 128, enhance: bool = True
    ) -> None:
        super().__init__(encoder, head)
        width, heads, dropout = head.width, head.heads, head.dropout
        self.image_proj = nn.Linear(encoder.width, width)  # a 1x1 convolution in the official code
        self.text_proj = nn.Linear(encoder.width, width)
        self.query_generator = QueryGenerator(
            width, heads, head.query_ffn, head.query_layers, head.num_queries, dropout=dropout
        )
        self.enhance = ImageEnhancement(width, dropout) if enhance else None
        self.decoder = ParallelDecoder(head.decoder_layers, width, heads, head.ffn, dropout)
        self.head = PredictionHead(width)
        self.mask_head = MaskHead(width, mask_channels)
        for module in (self.enhance, self.decoder):
            for parameter in module.parameters() if module is not None else ():
                if parameter.ndim > 1:
                    nn.init.xavier_uniform_(parameter)

    def outputs_of(self, batch: Batch, maps: bool, masks: bool) -> Outputs:
        """The forward pass.

        Args:
            batch: images and texts.
            maps: with the decoder's attention maps.
            masks: with the mask head.
        """
        encoded = self.encoder(batch.image, batch.text_ids, batch.text_pad)
        text = self.text_proj(encoded.text)
        memory = self.image_proj(encoded.image)
        query, pooled = self.query_generator(text, batch.text_pad)
        score = None
        if self.enhance is not None:
            memory, score = self.enhance(memory + self.position, pooled)
            score = score.unflatten(-1, (self.grid, self.grid))
        keys = memory + self.position
        hidden, attention = self.decoder(query, keys, memory, maps)
        if attention is not None:
            attention = attention.unflatten(-1, (self.grid, self.grid))
        logits, boxes = self.head(hidden)
        mask_logits = None
        if masks:
            mask_logits = self.mask_head(keys.transpose(1, 2).unflatten(-1, (self.grid, self.grid)))
        return Outputs(encoded, pooled, query, memory, score, attention, hidden, logits, boxes, mask_logits)
