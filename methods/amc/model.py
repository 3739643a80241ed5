"""ALBEF: ViT image encoder, BERT split into text and fusion layers, momentum copies and feature queues.

Module names are those of the official checkpoints (salesforce/ALBEF, uvavision/AMC-grounding), so that a state dict
of theirs is a state dict of :class:`ALBEF`. Notation: B texts, I images, L text positions, N patches, D text width.

Attention that lies between the kept cross-attention map A and the matching score is differentiated twice by the AMC
loss; it is computed explicitly, the rest by the fused kernels.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vgbench.core.errors import UserError
from vgbench.layers.patches import embed_patches

TEMPERATURE_RANGE = (0.001, 0.5)
INIT_STD = 0.02  # of BERT and ViT, for a width of 768
BERT_EPS = 1e-12


def resize_positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    """Position table [1, 1 + g*g, C] -> [1, 1 + h*w, C]: the class entry is kept, the grid resized bicubically.

    ``align_corners=False``, no antialiasing (the published numbers at 384 px rest on it).
    """
    side = math.isqrt(table.shape[1] - 1)
    if (side, side) == tuple(grid):
        return table
    patches = table[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    patches = F.interpolate(patches, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1], patches.flatten(2).transpose(1, 2)], dim=1)


class VisionEncoder(VisionTransformer):
    """Pre-norm ViT (timm's modules) that returns all tokens and takes images of any size divisible by the patch.

    Args:
        image_size: side of the images that the position table is made for, pixels.
        patch_size: patch side, pixels.
        width: token width.
        depth: blocks.
        heads: attention heads.
        mlp_ratio: hidden width of the MLPs as a multiple of ``width``.
        init_std: of the initial weights, position table and class token (truncated normal).
        position_std: of the initial position table instead (normal). Patches that are not pretrained have a standard
            deviation of a few units, in which positions of 0.02 are lost.
    """

    cls_token: nn.Parameter
    pos_embed: nn.Parameter

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        init_std: float = INIT_STD,
        position_std: float | None = None,
    ) -> None:
        super().__init__(
            img_size=image_size,
            patch_size=patch_size,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            mlp_ratio=mlp_ratio,
            num_classes=0,
            global_pool="",
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
        linear = (module.weight for module in self.modules() if isinstance(module, nn.Linear))
        for parameter in (self.pos_embed, self.cls_token, *linear):
            nn.init.trunc_normal_(parameter, std=init_std)
        if position_std is not None:
            nn.init.normal_(self.pos_embed, std=position_std)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """Position embedding [1, 1 + h*w, width] for a (h, w) grid of patches."""
        return resize_positions(self.pos_embed, grid)

    def embed(self, image: Tensor) -> Tensor:
        """[I, 3, H, W] -> class token and patches with their positions [I, 1 + N, width]."""
        patches = embed_patches(image, self.patch_embed.proj)
        grid = (patches.shape[1], patches.shape[2])
        tokens = patches.flatten(1, 2)
        return torch.cat([self.cls_token.expand(len(image), -1, -1), tokens], dim=1) + self.positions(grid)

    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        """Normalised images [I, 3, H, W] -> tokens after the final norm [I, 1 + N, width], class token first."""
        tokens = self.embed(image)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def with_attention(self, image: Tensor, index: Tensor, number: int) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, with the attention map of one block as the beginning of the graph.

        Args:
            image: [I, 3, H, W].
            index: [B] int64, the image of each row of the result. Blocks before ``number`` run once per image.
            number: block whose map is wanted, from 0.

        Returns:
            tokens [B, 1 + N, width] and softmax probabilities [B, heads, 1 + N, 1 + N] (float32, requires grad).
        """
        with torch.no_grad():
            tokens = self.embed(image)
            for earlier in self.blocks[:number]:
                tokens = earlier(tokens)
            tokens = tokens[index]
        block: Any = self.blocks[number]
        attention = block.attn
        qkv = attention.qkv(block.norm1(tokens)).unflatten(-1, (3, attention.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).float()
        with torch.autocast(tokens.device.type, enabled=False):
            scores = (query @ key.transpose(-2, -1)) * attention.scale
            probabilities = scores.softmax(-1).detach().requires_grad_()
            context = (probabilities @ value).transpose(1, 2).flatten(2)
        tokens = tokens + attention.proj(context)
        tokens = tokens + block.mlp(block.norm2(tokens))
        for later in self.blocks[number + 1 :]:
            tokens = later(tokens)
        return self.norm(tokens), probabilities


class _Projections(nn.Module):
    """Query, key and value projections of BERT's attention; keys and values may come from tokens of other width."""

    def __init__(self, width: int, source_width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(source_width, width)
        self.value = nn.Linear(source_width, width)


class _Residual(nn.Module):
    """Dense layer, dropout, addition to the input, LayerNorm: the end of each of BERT's sublayers."""

    def __init__(self, source_width: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(source_width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=BERT_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, update: Tensor, hidden: Tensor) -> Tensor:
        return self.LayerNorm(hidden + self.dropout(self.dense(update)))


class Attention(nn.Module):
    """BERT's attention sublayer ``LN(h + Wo Attn(h, s))``, self- or cross-attention.

    Args:
        width: width D of the queries.
        heads: heads.
        source_width: width of the keys' and values' tokens.
        dropout: on the probabilities and on the output.
    """

    def __init__(self, width: int, heads: int, source_width: int, dropout: float) -> None:
        super().__init__()
        self.self = _Projections(width, source_width)
        self.output = _Residual(width, width, dropout)
        self.heads = heads
        self.dropout = dropout

    def forward(
        self,
        hidden: Tensor,
        source: Tensor,
        pad: Tensor | None = None,
        index: Tensor | None = None,
        explicit: bool = False,
        cut: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """
        Args:
            hidden: queries [B, L, D].
            source: tokens of the keys and values [S, M, D'].
            pad: [S, M] bool, True = not attended to.
            index: [B] int64, the row of ``source`` that each query row attends to; None: S = B, row by row.
            explicit: softmax in plain operations and float32, which can be differentiated twice.
            cut: detach the probabilities from what they come from (explicit only).

        Returns:
            hidden [B, L, D] and, if ``explicit``, the probabilities before dropout [B, heads, L, M] float32.
        """
        query = self.self.query(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = (layer(source) for layer in (self.self.key, self.self.value))
        if index is not None:
            key, value = key[index], value[index]
        key, value = (tensor.unflatten(-1, (self.heads, -1)).transpose(1, 2) for tensor in (key, value))
        visible = None if pad is None else ~pad[:, None, None, :]
        dropout = self.dropout if self.training else 0.0
        probabilities = None
        if explicit:
            with torch.autocast(hidden.device.type, enabled=False):
                scores = query.float() @ key.float().transpose(-2, -1) / math.sqrt(query.shape[-1])
                if visible is not None:
                    scores = scores.masked_fill(~visible, -10000.0)
                probabilities = scores.softmax(-1)
                if cut:
                    # not a leaf itself: torch's module tracker (FLOP counting) takes no leaf as a module's output
                    probabilities = probabilities.detach().requires_grad_().clone()
                context = F.dropout(probabilities, dropout, self.training) @ value.float()
        else:
            context = F.scaled_dot_product_attention(query, key, value, attn_mask=visible, dropout_p=dropout)
        return self.output(context.transpose(1, 2).flatten(2), hidden), probabilities


class _Intermediate(nn.Module):
    def __init__(self, width: int, ffn: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, ffn)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.gelu(self.dense(hidden))


class Layer(nn.Module):
    """Post-norm BERT layer; a fusion layer has cross-attention to the image between its two sublayers."""

    def __init__(self, width: int, heads: int, ffn: int, dropout: float, vision_width: int | None) -> None:
        super().__init__()
        self.attention = Attention(width, heads, width, dropout)
        if vision_width is not None:
            self.crossattention = Attention(width, heads, vision_width, dropout)
        self.intermediate = _Intermediate(width, ffn)
        self.output = _Residual(ffn, width, dropout)

    def feed_forward(self, hidden: Tensor) -> Tensor:
        return self.output(self.intermediate(hidden), hidden)

    def forward(self, hidden: Tensor, pad: Tensor, image: Tensor | None = None, index: Tensor | None = None) -> Tensor:
        """The whole layer: text [B, L, D], padding [B, L], and for a fusion layer the image tokens (and the image of
        each text)."""
        hidden, _ = self.attention(hidden, hidden, pad)
        if image is not None:
            hidden, _ = self.crossattention(hidden, image, index=index)
        return self.feed_forward(hidden)


class _Embeddings(nn.Module):
    """Word, position and token-type (always type 0) embeddings, LayerNorm, dropout."""

    def __init__(self, vocab_size: int, max_positions: int, width: int, pad_id: int, dropout: float) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab_size, width, padding_idx=pad_id)
        self.position_embeddings = nn.Embedding(max_positions, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm = nn.LayerNorm(width, eps=BERT_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        positions = self.position_embeddings.weight[: ids.shape[1]]
        return self.dropout(
            self.LayerNorm(self.word_embeddings(ids) + positions + self.token_type_embeddings.weight[0])
        )


class _Encoder(nn.Module):
    def __init__(self, layers: list[Layer]) -> None:
        super().__init__()
        self.layer = nn.ModuleList(layers)


class _Bert(nn.Module):
    def __init__(self, embeddings: _Embeddings, encoder: _Encoder) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.encoder = encoder


class _Transform(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.LayerNorm = nn.LayerNorm(width, eps=BERT_EPS)


class _Predictions(nn.Module):
    """MLM head; its decoder is the word embedding."""

    def __init__(self, width: int, vocab_size: int) -> None:
        super().__init__()
        self.transform = _Transform(width)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, hidden: Tensor, words: Tensor) -> Tensor:
        hidden = self.transform.LayerNorm(F.gelu(self.transform.dense(hidden)))
        return F.linear(hidden, words, self.bias)


class _Heads(nn.Module):
    def __init__(self, predictions: _Predictions) -> None:
        super().__init__()
        self.predictions = predictions


class TextEncoder(nn.Module):
    """BERT whose layers from ``fusion_layer`` on also attend to the image; bidirectional, no pooler.

    Args:
        vocab_size: word pieces.
        max_positions: longest text, in ids.
        width: hidden width D.
        heads: heads.
        layers: all layers.
        fusion_layer: number of text-only layers; the rest are fusion layers.
        ffn: hidden width of the feed-forward networks.
        vision_width: width of the image tokens.
        pad_id: padding id, whose embedding gets no gradient as an input.
        dropout: everywhere in BERT.
        init_std: of the initial weights (normal).
    """

    def __init__(
        self,
        vocab_size: int,
        max_positions: int,
        width: int,
        heads: int,
        layers: int,
        fusion_layer: int,
        ffn: int,
        vision_width: int,
        pad_id: int,
        dropout: float,
        init_std: float = INIT_STD,
    ) -> None:
        super().__init__()
        self.fusion_layer = fusion_layer
        stack = [
            Layer(width, heads, ffn, dropout, vision_width if number >= fusion_layer else None)
            for number in range(layers)
        ]
        self.bert = _Bert(_Embeddings(vocab_size, max_positions, width, pad_id, dropout), _Encoder(stack))
        self.cls = _Heads(_Predictions(width, vocab_size))
        self.apply(partial(self._initialise, std=init_std))

    @staticmethod
    def _initialise(module: nn.Module, std: float) -> None:
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=std)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()

    def text(self, ids: Tensor, pad: Tensor) -> Tensor:
        """Embeddings and text layers: ids [B, L], pad [B, L] bool -> [B, L, D]."""
        hidden = self.bert.embeddings(ids)
        layer: Any
        for layer in self.bert.encoder.layer[: self.fusion_layer]:
            hidden = layer(hidden, pad)
        return hidden

    def fuse(
        self,
        hidden: Tensor,
        pad: Tensor,
        image: Tensor,
        index: Tensor | None = None,
        keep: int | None = None,
        cut: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The fusion layers.

        Args:
            hidden: text embeddings [B, L, D].
            pad: [B, L] bool, True = padding.
            image: image tokens [I, 1 + N, vision width].
            index: [B] int64, the image of each text; None: I = B, row by row.
            keep: number of the layer (counted over all layers) whose cross-attention map A is returned, with every
                later operation twice differentiable.
            cut: gradients reach A, but do not go through it.

        Returns:
            hidden [B, L, D] and A [B, heads, L, 1 + N] float32 before dropout, or None.
        """
        kept = None
        for number in range(self.fusion_layer, len(self.bert.encoder.layer)):
            layer: Any = self.bert.encoder.layer[number]
            if keep is None or number < keep:
                hidden = layer(hidden, pad, image, index)
                continue
            hidden, _ = layer.attention(hidden, hidden, pad, explicit=number != keep)
            hidden, probabilities = layer.crossattention(
                hidden, image, index=index, explicit=True, cut=cut and number == keep
            )
            if number == keep:
                kept = probabilities
            hidden = layer.feed_forward(hidden)
        return hidden, kept

    def masked_words(self, ids: Tensor, pad: Tensor, image: Tensor) -> Tensor:
        """MLM logits [B, L, vocabulary] of partly masked ids over the image tokens [B, 1 + N, vision width]."""
        hidden, _ = self.fuse(self.text(ids, pad), pad, image)
        return self.cls.predictions(hidden, self.bert.embeddings.word_embeddings.weight)


class ALBEF(nn.Module):
    """The whole vision-language model, momentum copies and queues included.

    Args:
        visual_encoder: image encoder.
        text_encoder: text and fusion encoder.
        text_width: D.
        embed_dim: width E of the contrastive features.
        queue_size: K, features kept of past batches.
    """

    visual_encoder_m: VisionEncoder
    vision_proj_m: nn.Linear
    text_encoder_m: TextEncoder
    text_proj_m: nn.Linear
    image_queue: Tensor
    text_queue: Tensor
    queue_ptr_img: Tensor
    queue_ptr_txt: Tensor

    def __init__(
        self,
        visual_encoder: VisionEncoder,
        text_encoder: TextEncoder,
        text_width: int,
        embed_dim: int,
        queue_size: int,
    ) -> None:
        super().__init__()
        self.visual_encoder = visual_encoder
        self.text_encoder = text_encoder
        self.vision_proj = nn.Linear(visual_encoder.embed_dim, embed_dim)
        self.text_proj = nn.Linear(text_width, embed_dim)
        self.itm_head = nn.Linear(text_width, 2)
        self.temp = nn.Parameter(torch.tensor(0.07))
        for name in MOMENTUM_MODULES:
            setattr(self, f"{name}_m", copy.deepcopy(getattr(self, name)).requires_grad_(False))
        for name in ("image_queue", "text_queue"):
            self.register_buffer(name, F.normalize(torch.randn(embed_dim, queue_size), dim=0))
        for name in ("queue_ptr_img", "queue_ptr_txt"):
            self.register_buffer(name, torch.zeros(1, dtype=torch.int64))

    def image_feature(self, tokens: Tensor, momentum: bool = False) -> Tensor:
        """Image tokens [B, 1 + N, width] -> unit contrastive features [B, E] float32."""
        return _unit((self.vision_proj_m if momentum else self.vision_proj)(tokens[:, 0]))

    def text_feature(self, hidden: Tensor, momentum: bool = False) -> Tensor:
        """Text embeddings [B, L, D] -> unit contrastive features [B, E] float32."""
        return _unit((self.text_proj_m if momentum else self.text_proj)(hidden[:, 0]))

    def match(self, hidden: Tensor) -> Tensor:
        """Fused text [B, L, D] -> matching logits [B, 2] float32, class 1 = match."""
        return self.itm_head(hidden[:, 0]).float()

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        self.temp.clamp_(*TEMPERATURE_RANGE)

    def momentum_pairs(self) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
        """(momentum parameter, parameter) of the four copied modules."""
        for name in MOMENTUM_MODULES:
            yield from zip(getattr(self, f"{name}_m").parameters(), getattr(self, name).parameters(), strict=True)

    @torch.compiler.disable  # one fused kernel over all parameters as it is
    @torch.no_grad()
    def update_momentum(self, momentum: float) -> None:
        """``theta_m <- momentum * theta_m + (1 - momentum) * theta``."""
        averages, values = map(list, zip(*self.momentum_pairs(), strict=True))
        torch._foreach_mul_(averages, momentum)
        torch._foreach_add_(averages, values, alpha=1.0 - momentum)

    @torch.compiler.disable
    @torch.no_grad()
    def enqueue(self, image_features: Tensor, text_features: Tensor) -> None:
        """Write the momentum features [B, E] of all processes, in rank order, at the pointers, wrapping around.

        Raises:
            UserError: if the batches of all processes together are larger than the queue.
        """
        features = _gather(torch.stack([image_features, text_features], dim=1))
        count, size = len(features), self.image_queue.shape[1]
        if count > size:
            raise UserError(f"method.queue_size={size} is smaller than the batch of all processes ({count}); raise it")
        offsets = torch.arange(count, device=features.device)
        for number, (queue, pointer) in enumerate(
            ((self.image_queue, self.queue_ptr_img), (self.text_queue, self.queue_ptr_txt))
        ):
            queue.index_copy_(1, (pointer + offsets) % size, features[:, number].T.to(queue.dtype))
            pointer.add_(count).remainder_(size)


MOMENTUM_MODULES = ("visual_encoder", "vision_proj", "text_encoder", "text_proj")


def _unit(feature: Tensor) -> Tensor:
    return F.normalize(feature.float(), dim=-1, eps=1e-12)


def _gather(features: Tensor) -> Tensor:
    """[B, ...] of every process, concatenated in rank order; every process must have the same B."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return features
    parts = [torch.empty_like(features) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, features.contiguous())
    return torch.cat(parts)
