"""BEiT-3, the image-text encoder of SimVG and ALVG.

Paper: Wang et al., "Image as a Foreign Language: BEiT Pretraining for All Vision and Vision-Language Tasks",
CVPR 2023 (arXiv 2208.10442); blocks with sub-layer norms: Wang et al., "Magneto" (arXiv 2210.06423).
Official code: microsoft/unilm, folder beit3, on microsoft/torchscale.

*Multiway*: self-attention mixes image and text tokens, but every linear layer and every LayerNorm exists twice, once
per modality. So the two token streams stay separate tensors here and meet in the attention only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vgbench.checkpoints.names import KeyEntry, LoadReport, load_mapped
from vgbench.core.errors import UserError
from vgbench.layers.depth import branch_scales, drop_path_rates
from vgbench.layers.gelu_norm import norm_of_gelu
from vgbench.layers.patches import embed_patches

__all__ = [
    "MASK_TOKEN",
    "BEiT3",
    "EncoderOutput",
    "adapt_own_size",
    "adapt_size",
    "beit3_keys",
    "load_beit3",
]

LAYER_NORM_EPS = 1e-5
POSITION_OFFSET = 2  # rows 0 and 1 of both position tables are never read (fairseq's convention)
MASK_TOKEN = "vision_embed.mask_token"  # official key that serves masked image modelling only
MODALITIES = {"vision": "A", "text": "B"}  # ours -> the official copy


class Expert(nn.Module):
    """The linear layers and norms that one modality owns in one layer (D = width, F = ffn_width)."""

    def __init__(self, width: int, ffn_width: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, LAYER_NORM_EPS)
        self.qkv = nn.Linear(width, 3 * width)
        self.inner_norm = nn.LayerNorm(width, LAYER_NORM_EPS)
        self.out = nn.Linear(width, width)
        self.ffn_norm = nn.LayerNorm(width, LAYER_NORM_EPS)
        self.fc1 = nn.Linear(width, ffn_width)
        self.mid_norm = nn.LayerNorm(ffn_width, LAYER_NORM_EPS)
        self.fc2 = nn.Linear(ffn_width, width)

    def project_qkv(self, x: Tensor) -> Tensor:
        return self.qkv(self.attention_norm(x))

    def project_out(self, heads: Tensor) -> Tensor:
        return self.out(self.inner_norm(heads))

    def ffn(self, x: Tensor) -> Tensor:
        return self.fc2(norm_of_gelu(self.fc1(self.ffn_norm(x)), self.mid_norm))


class Layer(nn.Module):
    """Pre-norm Transformer layer with sub-layer norms and one expert per modality.

    Every layer of an encoder runs the same code on tensors of the same shapes, so that one compiled layer serves all.
    """

    def __init__(self, width: int, heads: int, ffn_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.vision = Expert(width, ffn_width)
        self.text = Expert(width, ffn_width)

    def forward(
        self, streams: dict[str, Tensor], mask: Tensor | None, scales: Tensor | None = None
    ) -> dict[str, Tensor]:
        """
        Args:
            streams: [B, n_m, D] by modality.
            mask: [B, 1, 1, T], added to the attention logits of the T keys.
            scales: [2, B, 1, 1], factors of the two residual branches of each sample; None: 1.
        """
        experts: dict[str, Expert] = {name: getattr(self, name) for name in streams}
        qkv = [experts[name].project_qkv(x) for name, x in streams.items()]
        joint = torch.cat(qkv, dim=1) if len(qkv) > 1 else qkv[0]
        query, key, value = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in joint.chunk(3, dim=-1))
        if mask is not None:
            mask = mask.to(query.dtype)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
        parts = attended.split([x.shape[1] for x in streams.values()], dim=1)

        first, second = (None, None) if scales is None else scales.unbind()
        streams = {
            name: _add(x, experts[name].project_out(part), first)
            for (name, x), part in zip(streams.items(), parts, strict=True)
        }
        return {name: _add(x, experts[name].ffn(x), second) for name, x in streams.items()}


def _add(x: Tensor, branch: Tensor, scale: Tensor | None) -> Tensor:
    return x + branch if scale is None else x + branch * scale


@dataclass
class EncoderOutput:
    """cls [B, D], image [B, N, D] row-major, text [B, L, D] (padding positions included); None for an absent input."""

    cls: Tensor | None
    image: Tensor | None
    text: Tensor | None


class BEiT3(nn.Module):
    """The encoder. N = (image_size / patch_size)^2 patch tokens, T = 1 + N + L.

    Args:
        width, layers, heads, ffn_width: 768, 12, 12, 3072 (base) or 1024, 24, 16, 4096 (large).
        image_size, patch_size: pixels; the input side must equal ``image_size``.
        vocab_size: rows of the word table.
        max_text_positions: rows of the text position table; L may be at most 2 less.
        drop_path: stochastic depth of the last layer, growing linearly from 0.
        init: "official", which expects a checkpoint to follow; "scratch" for training without one: Xavier linear
            layers, and words and patches that their position codes (standard deviation 1 officially) do not drown.
    """

    def __init__(
        self,
        width: int = 768,
        layers: int = 12,
        heads: int = 12,
        ffn_width: int = 3072,
        image_size: int = 640,
        patch_size: int = 32,
        vocab_size: int = 64010,
        max_text_positions: int = 1024,
        drop_path: float = 0.1,
        init: Literal["official", "scratch"] = "official",
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"image_size {image_size} is no multiple of patch_size {patch_size}")
        self.image_size = image_size
        self.patch_size = patch_size
        self.grid = image_size // patch_size
        self.width = width
        self.patch_embed = nn.Conv2d(3, width, patch_size, patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.vision_position = nn.Embedding(self.grid**2 + 1 + POSITION_OFFSET, width)
        self.text_embed = nn.Embedding(vocab_size, width)
        self.text_position = nn.Embedding(max_text_positions, width)
        self.drop_path = drop_path
        self.keep: Tensor  # [layers], probability that a residual branch is kept in training
        self.register_buffer("keep", 1 - torch.tensor(drop_path_rates(drop_path, layers)), persistent=False)
        self.layers = nn.ModuleList([Layer(width, heads, ffn_width) for _ in range(layers)])
        self.norm = nn.ModuleDict({name: nn.LayerNorm(width, LAYER_NORM_EPS) for name in MODALITIES})
        self._initialise()
        if init == "scratch":
            self._initialise_from_scratch()

    def _initialise_from_scratch(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.flatten(1))
        nn.init.normal_(self.text_embed.weight, std=1.0)
        for table in (self.vision_position, self.text_position):
            nn.init.normal_(table.weight, std=0.2)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.02, b=0.02)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.text_embed.weight, std=self.width**-0.5)

    def embed_image(self, image: Tensor) -> Tensor:
        """[B, 3, S, S] -> cls and patch tokens with positions, [B, 1 + N, D]."""
        if image.shape[-2:] != (self.image_size, self.image_size):
            raise ValueError(f"BEiT-3 built for {self.image_size} px got an image of {tuple(image.shape[-2:])}")
        patches = embed_patches(image, self.patch_embed).flatten(1, 2)
        position = self.vision_position.weight[POSITION_OFFSET:]
        cls = (self.cls_token + position[:1]).expand(image.shape[0], -1, -1)
        return torch.cat([cls, patches + position[1:]], dim=1)

    def embed_text(self, ids: Tensor, pad: Tensor) -> Tensor:
        """ids [B, L], pad [B, L] bool -> [B, L, D]; the rows of padding tokens are zero."""
        position = self.text_position.weight[POSITION_OFFSET : POSITION_OFFSET + ids.shape[1]]
        return (self.text_embed(ids) + position).masked_fill(pad[..., None], 0.0)

    def embed(
        self, image: Tensor | None, text_ids: Tensor | None, text_pad: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """The token streams before the first layer and the additive attention mask [B, 1, 1, T]."""
        streams: dict[str, Tensor] = {}
        mask = None
        if image is not None:
            streams["vision"] = self.embed_image(image)
        if text_ids is not None:
            if text_pad is None:
                text_pad = torch.zeros_like(text_ids, dtype=torch.bool)
            streams["text"] = self.embed_text(text_ids, text_pad)
            before = streams["vision"].shape[1] if image is not None else 0
            blocked = F.pad(text_pad, (before, 0))
            mask = torch.zeros(blocked.shape, device=blocked.device).masked_fill_(blocked, float("-inf"))
            mask = mask[:, None, None]
        return streams, mask

    def forward(
        self, image: Tensor | None = None, text_ids: Tensor | None = None, text_pad: Tensor | None = None
    ) -> EncoderOutput:
        """Encode image and text together, or one of them alone.

        Args:
            image: [B, 3, S, S] float, or None.
            text_ids: [B, L] int64, or None.
            text_pad: [B, L] bool, True = padding; None: no padding. Padding tokens are never attended to, but they
                attend, and all padding tokens of a sample come out equal.
        """
        streams, mask = self.embed(image, text_ids, text_pad)
        scales: Any = [None] * len(self.layers)
        if self.training and self.drop_path:
            scales = branch_scales(self.keep, 2, len(next(iter(streams.values())))).unbind()
        for layer, scale in zip(self.layers, scales, strict=True):
            streams = layer(streams, mask, scale)
        out = {name: self.norm[name](x) for name, x in streams.items()}
        vision, text = out.get("vision"), out.get("text")
        if vision is None:
            return EncoderOutput(None, None, text)
        return EncoderOutput(vision[:, 0], vision[:, 1:], text)


def beit3_keys(layers: int, ours: str = "", official: str = "beit3.") -> list[KeyEntry]:
    """Every live key of BEiT-3: our parameter names under ``ours``, the published ones under ``official``."""

    def entry(name: str, *names: str) -> KeyEntry:
        return KeyEntry(ours + name, tuple(official + other for other in names))

    entries = [
        entry("cls_token", "vision_embed.cls_token"),
        entry("patch_embed.weight", "vision_embed.proj.weight"),
        entry("patch_embed.bias", "vision_embed.proj.bias"),
        entry("text_embed.weight", "text_embed.weight"),
        entry("vision_position.weight", "encoder.embed_positions.A.weight"),
        entry("text_position.weight", "encoder.embed_positions.B.weight"),
    ]
    for name, copy in MODALITIES.items():
        for kind in ("weight", "bias"):
            entries.append(entry(f"norm.{name}.{kind}", f"encoder.layer_norm.{copy}.{kind}"))
            for i in range(layers):
                theirs = f"encoder.layers.{i}"
                names = {
                    "attention_norm": [f"self_attn_layer_norm.{copy}"],
                    "qkv": [f"self_attn.{x}_proj.{copy}" for x in "qkv"],
                    "inner_norm": [f"self_attn.inner_attn_ln.{copy}"],
                    "out": [f"self_attn.out_proj.{copy}"],
                    "ffn_norm": [f"final_layer_norm.{copy}"],  # the norm before the FFN, in spite of its name
                    "fc1": [f"ffn.{copy}.fc1"],
                    "mid_norm": [f"ffn.{copy}.ffn_layernorm"],
                    "fc2": [f"ffn.{copy}.fc2"],
                }
                for our, their in names.items():
                    entries.append(
                        entry(f"layers.{i}.{name}.{our}.{kind}", *(f"{theirs}.{other}.{kind}" for other in their))
                    )
    return entries


def adapt_size(
    state: Mapping[str, Tensor],
    encoder: BEiT3,
    prefix: str = "beit3.",
    position: str = "encoder.embed_positions.A.weight",
    projection: str = "vision_embed.proj.weight",
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Fit a checkpoint of another image or patch size to ``encoder``, as the official loader does.

    The patch rows of the vision position table and the patch projection are resized bicubically (align_corners False,
    no antialiasing, float32); the kernel is *not* rescaled, so its response grows with its area.

    Args:
        state: tensors whose names start with ``prefix``; others pass.
        encoder: the model whose sizes count.
        prefix: of the encoder's names.
        position, projection: names of the two tensors, official by default.

    Returns:
        The state with the resized tensors, and the names of those.
    """
    adapted: dict[str, Tensor] = dict(state)
    changed = []
    name = prefix + position
    special = POSITION_OFFSET + 1  # two unread rows and the cls row
    table = state.get(name)
    if table is not None and table.shape[0] != encoder.grid**2 + special:
        side = round((table.shape[0] - special) ** 0.5)
        if side * side + special == table.shape[0]:
            patches = table[special:].float().T.reshape(1, -1, side, side)
            patches = F.interpolate(patches, (encoder.grid, encoder.grid), mode="bicubic", align_corners=False)
            adapted[name] = torch.cat([table[:special].float(), patches.flatten(2)[0].T])
            changed.append(name)
    name = prefix + projection
    kernel = state.get(name)
    patch = encoder.patch_size
    if kernel is not None and kernel.ndim == 4 and kernel.shape[-2:] != (patch, patch):
        adapted[name] = F.interpolate(kernel.float(), (patch, patch), mode="bicubic", align_corners=False)
        changed.append(name)
    return adapted, tuple(changed)


OWN_SIZED = ("vision_position.weight", "patch_embed.weight")  # our names of the tensors that depend on sizes


def adapt_own_size(state: Mapping[str, Tensor], encoder: BEiT3, prefix: str = "encoder.") -> dict[str, Tensor]:
    """:func:`adapt_size` for a state dict with our names."""
    return adapt_size(state, encoder, prefix, *OWN_SIZED)[0]


def load_beit3(encoder: BEiT3, state: Mapping[str, Tensor], source: Path | None = None) -> LoadReport:
    """Load an encoder, resized where needed (:func:`adapt_size`).

    Published encoders have their keys under ``beit3.`` (the authors' files), ``vis_enc.beit3.`` (inside SimVG and ALVG
    checkpoints) or bare; a model that was trained here has its own names under ``encoder.``. Keys elsewhere
    (pre-training heads, the rest of a model) are reported as unused.

    Args:
        encoder: where the tensors go.
        state: what is in the file.
        source: the file, for messages.

    Raises:
        UserError: if an encoder key is missing, unknown or of a shape that cannot be adapted.
    """
    if "encoder.text_embed.weight" in state:
        prefix, what = "encoder.", "a model with a BEiT-3 encoder"
        ignored: tuple[str, ...] = ()
        state, adapted = adapt_size(state, encoder, prefix, *OWN_SIZED)
        entries = [KeyEntry(name, (prefix + name,)) for name in encoder.state_dict()]
    else:
        prefix = next((p for p in ("beit3.", "vis_enc.beit3.", "") if f"{p}text_embed.weight" in state), "beit3.")
        what, ignored = "a BEiT-3 pre-training checkpoint", (prefix + MASK_TOKEN,)
        state, adapted = adapt_size(state, encoder, prefix)
        entries = beit3_keys(len(encoder.layers), official=prefix)
    inside = {name: value for name, value in state.items() if name.startswith(prefix)}
    outside = tuple(name for name in state if name not in inside)
    try:
        report = load_mapped(encoder, inside or state, entries, what, ignored, adapted)
    except UserError as error:
        raise UserError(f"{source}: {error}" if source else str(error)) from None
    return LoadReport(report.used, (*report.unused, *outside), report.adapted)
