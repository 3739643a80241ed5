"""SimVG's network: a query from the text, read by a decoder over the image and by BEiT-3's class token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vgbench.core.errors import UserError
from vgbench.layers.beit3 import EncoderOutput
from vgbench.layers.position import sine_position_2d
from vgbench.methods.beit3.decoder import DecoderLayer
from vgbench.methods.beit3.heads import PredictionHead
from vgbench.methods.beit3.model import BEiT3Network, EncoderConfig, HeadConfig
from vgbench.methods.beit3.queries import QueryGenerator, TextPooling
from vgbench.types import Batch

BRANCHES = ("decoder", "token")


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

    def branch(self, name: str) -> Branch:
        """The output of branch ``name``.

        Raises:
            KeyError: if it was not asked for.
        """
        branch = {"decoder": self.decoder, "token": self.token}[name]
        if branch is None:
            raise KeyError(name)
        return branch


class Decoder(nn.Module):
    """K chained post-norm layers; every layer's output is normalised by one shared LayerNorm, and not fed back."""

    def __init__(self, layers: int, width: int, heads: int, ffn_width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([DecoderLayer(width, heads, ffn_width, dropout) for _ in range(layers)])
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


class SimVGNetwork(BEiT3Network):
    """Encoder, query generation and the two branches.

    Args:
        encoder, head: sizes.
        text_pooling: see :func:`vgbench.methods.beit3.queries.pool_text`.
        with_decoder: False: the token branch alone, for inference.
    """

    def __init__(
        self,
        encoder: EncoderConfig,
        head: HeadConfig,
        text_pooling: TextPooling = "official",
        with_decoder: bool = True,
    ) -> None:
        super().__init__(encoder, head)
        width, heads, dropout = head.width, head.heads, head.dropout
        self.text_proj = nn.Linear(encoder.width, width)
        self.cls_proj = nn.Linear(encoder.width, width)
        self.query_generator = QueryGenerator(
            width, heads, head.query_ffn, head.query_layers, head.num_queries, text_pooling, dropout
        )
        self.token_proj = nn.Linear(width, width)
        self.token_head = PredictionHead(width)
        self.image_proj: nn.Linear | None = None
        self.decoder: Decoder | None = None
        self.decoder_head: PredictionHead | None = None
        if with_decoder:
            self.image_proj = nn.Linear(encoder.width, width)  # a 1x1 convolution in the official code
            self.decoder = Decoder(head.decoder_layers, width, heads, head.ffn, dropout)
            self.decoder_head = PredictionHead(width)

    def network(self, batch: Batch, branches: Sequence[str]) -> Outputs:
        """The forward pass of the named branches.

        Raises:
            UserError: if the decoder is asked for and the network has none.
        """
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
            return batch.image.new_full((2,), self.encoder_config.image_size, dtype=torch.float32)
        valid = ~batch.image_pad
        return torch.stack([valid[:, 0].sum(-1), valid[:, :, 0].sum(-1)], dim=-1).float()
