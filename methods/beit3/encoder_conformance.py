"""Conformance of the BEiT-3 encoder, its checkpoint adaptation and its tokenizer (cases ``beit3*``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vgbench.checkpoints.names import LoadReport, export_mapped
from vgbench.conform.case import Case
from vgbench.layers.beit3 import BEiT3, beit3_keys, load_beit3
from vgbench.text.sentencepiece import BEiT3Tokenizer, clean_expression


def encoder_arguments(spec: Mapping[str, Any]) -> dict[str, Any]:
    """``model.encoder`` of a case.yaml -> arguments of :class:`BEiT3`."""
    return {
        "width": spec["embed_dim"],
        "layers": spec["layers"],
        "heads": spec["heads"],
        "ffn_width": spec["ffn_dim"],
        "image_size": spec["image_size"],
        "patch_size": spec["patch_size"],
        "vocab_size": spec["vocab_size"],
        "max_text_positions": spec["max_text_positions"],
        "drop_path": spec["drop_path_rate"],
    }


def _encoder(case: Case) -> tuple[BEiT3, LoadReport]:
    encoder = BEiT3(**encoder_arguments(case.spec["model"]["encoder"]))
    report = load_beit3(encoder, case.weights)
    return encoder.to(case.device).eval(), report


def run(case: Case) -> dict[str, Tensor]:
    modes = {"encoder": _run_encoder, "adapt": _run_adapt, "tokenizer": _run_tokenizer}
    return modes[case.spec["mode"]](case)


def _run_encoder(case: Case) -> dict[str, Tensor]:
    encoder, _ = _encoder(case)
    image, ids = case.inputs["image"], case.inputs["text_ids"]
    pad = case.inputs["text_pad"].bool()
    layer_outputs: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _m, _i, out: layer_outputs.append(torch.cat(list(out.values()), 1)))
        for layer in encoder.layers
    ]
    out = encoder(image, ids, pad)
    for hook in hooks:
        hook.remove()
    joint = torch.cat([out.cls[:, None], out.image, out.text], dim=1)
    (joint * case.inputs["cotangent"]).sum().backward()
    entries = beit3_keys(len(encoder.layers))
    gradients = export_mapped({name: p.grad for name, p in encoder.named_parameters()}, entries)

    alone = encoder(image=image)
    text_only = encoder(text_ids=ids, text_pad=pad)
    streams, _ = encoder.embed(image, ids, pad)
    result = {
        "encoder_out": joint,
        "enc_cls": out.cls,
        "enc_img": out.image,
        "enc_text": out.text,
        "embedding": torch.cat(list(streams.values()), dim=1),
        "image_only.encoder_out": torch.cat([alone.cls[:, None], alone.image], dim=1),
        "text_only.encoder_out": text_only.text,
        "drop_path_prob": 1 - encoder.keep,
    }
    result |= {f"layer.{i}": value for i, value in enumerate(layer_outputs)}
    return result | {f"grad.{name}": value for name, value in gradients.items()}


def _run_adapt(case: Case) -> dict[str, Tensor]:
    encoder, report = _encoder(case)
    out = encoder(case.inputs["image"], case.inputs["text_ids"], case.inputs["text_pad"].bool())
    state = export_mapped(encoder.state_dict(), beit3_keys(len(encoder.layers)))
    adapted = {f"adapted.{name}": state[name] for name in report.adapted}
    return {"encoder_out": torch.cat([out.cls[:, None], out.image, out.text], dim=1), **adapted}


def _run_tokenizer(case: Case) -> dict[str, Tensor]:
    tokenizer = BEiT3Tokenizer(bytes(case.weights["spm_model"].tolist()), case.spec["max_token"])
    ids, pad = tokenizer([clean_expression(text) for text in case.text("text_bytes")])
    return {"text_ids": ids, "text_pad": pad}
