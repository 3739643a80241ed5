"""Conformance runner of VG-LAW: modes "multitask" and "preprocess"."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from vgbench import optim
from vgbench.batches import letterbox
from vgbench.checkpoints.names import export_mapped
from vgbench.conform.case import Case
from vgbench.conform.helpers import StepReach, decode_bytes, raw_sample, text_rows, training_samples, under_prefix
from vgbench.core.errors import UserError
from vgbench.layers.boxes import cxcywh_to_xyxy, iou, xyxy_to_cxcywh
from vgbench.methods.vglaw import transforms
from vgbench.methods.vglaw.method import VGLAW
from vgbench.methods.vglaw.optim import AdamWeightDecay
from vgbench.text.wordpiece import WordPiece
from vgbench.types import Batch, Sample


def run(case: Case) -> dict[str, Tensor]:
    """Tensors of one case under the names of its ``expected.safetensors``."""
    runners = {"multitask": _multitask, "preprocess": _preprocess}
    mode = case.spec.get("mode")
    if mode not in runners:
        raise UserError(f"{case.path}: mode {mode!r} is none of VG-LAW's: {', '.join(runners)}")
    return runners[mode](case)


def _build(case: Case) -> VGLAW:
    sizes, rates = case.spec["sizes"], case.spec["optimiser"]
    method = VGLAW(
        image_size=sizes["image_size"],
        patch_size=sizes["patch_size"],
        dim=sizes["vit_embed_dim"],
        depth=sizes["vit_depth"],
        heads=sizes["vit_heads"],
        mlp_ratio=sizes["vit_mlp_ratio"],
        window_size=sizes["window_size"],
        global_blocks=sizes["global_block_indexes"],
        pretrain_image_size=sizes["pretrain_image_size"],
        max_tokens=sizes["max_tokens"],
        vocab_size=sizes["vocab_size"],
        text_dim=sizes["text_hidden"],
        text_layers=sizes["text_layers"],
        text_heads=sizes["text_heads"],
        text_ffn=sizes["text_ffn"],
        max_positions=sizes["max_position_embeddings"],
        rank=sizes["factor_rank"],
        gather_heads=sizes["gather_heads"],
        key_dim=sizes["pool_dim"],
        box_dim=sizes["box_mlp_hidden"],
        mask_dim=sizes["upsample_mid_channels"],
        mask_threshold=case.spec["mask_threshold"],
        visual_lr=rates["lr_visual_encoder"] / rates["lr_rest"],
        text_lr=rates["lr_text_encoder"] / rates["lr_rest"],
    )
    method.load_official(case.weights)
    return method.to(case.device).eval()


def _multitask(case: Case) -> dict[str, Tensor]:
    method, data = _build(case), case.inputs
    model = method.model
    batch = Batch(
        image=data["image"],
        image_pad=data["image_pad"].bool(),
        text_ids=data["text_ids"],
        text_pad=data["text_pad"].bool(),
        boxes=data["target_boxes"][:, None],
        valid=torch.ones(len(data["image"]), 1, dtype=torch.bool, device=data["image"].device),
        masks=data["target_masks"][:, None],
    )
    first: dict[str, Tensor] = {}
    inputs: list[Tensor] = []
    block = model.visual_encoder.blocks[0]
    hooks = [
        block.register_forward_hook(lambda module, args, out: first.update(block0_out=out)),
        # the projection is a function; what it returned is what the attention got
        block.get_submodule("attn").register_forward_hook(lambda module, args, out: first.update(block0_qkv=args[0])),
        model.visual_encoder.patch_embed.register_forward_hook(lambda module, args, out: inputs.append(out)),
    ]
    output = method.network(batch)
    for hook in hooks:
        hook.remove()
    assert output.mask_logits is not None and output.mask_logits_lowres is not None
    losses = method.losses(output, batch)
    out = {
        "pred_boxes": output.boxes[:, None],
        "pred_masks": output.mask_logits[:, None],
        "text_feat": output.text,
        "gather_feat": output.gathered,
        "ada_weight": output.cores.flatten(2),
        **first,
        "visual_feat": output.visual,
        "pool_attn": output.attention.flatten(1)[:, None, None],
        "pooled_feat": output.pooled,
        "mask_logits_lowres": output.mask_logits_lowres[:, None],
        "pos_embed_resized": model.visual_encoder.positions(*inputs[0].shape[1:3]),
        **{f"loss.{name}": value for name, value in losses.items()},
        "loss.rec_only_total": losses["bbox"] + losses["xiou"],
        "metric.det_iou": iou(cxcywh_to_xyxy(output.boxes) * method.image_size, data["target_boxes"]),
        "metric.seg_iou": _mask_iou(
            output.mask_logits.sigmoid() > method.options.mask_threshold, data["target_masks"].bool()
        ),
    }
    out = {name: value.detach() for name, value in out.items()}
    losses["total"].backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    out["grad_global_norm"] = torch.nn.utils.get_total_norm([g for g in gradients.values() if g is not None])
    out |= {f"grad.{name}": value for name, value in export_mapped(gradients, method.official_names()).items()}
    return {**out, **_two_steps(case, method, batch)}


def _mask_iou(prediction: Tensor, target: Tensor) -> Tensor:
    """Mask IoU per sample as the official metric has it: [B, H, W] bool each -> [B]."""
    shared = (prediction & target).flatten(1).sum(1)
    either = (prediction | target).flatten(1).sum(1)
    return (shared + 1e-10) / (either + 1e-10)


def _two_steps(case: Case, method: VGLAW, batch: Batch) -> dict[str, Tensor]:
    """Two steps of the official optimiser on the same batch, dropout off."""
    spec = case.spec["optimiser"]
    factory = partial(
        AdamWeightDecay,
        betas=(spec["beta1"], spec["beta2"]),
        eps=spec["eps"],
        weight_decay=spec["weight_decay"],
    )
    optimizer = optim.build_optimizer(method.param_groups(spec["lr_rest"]), factory)
    # Without bias correction the first step is (1 - beta1) / sqrt(1 - beta2) learning rates long.
    growth = max(1.0, (1 - spec["beta1"]) / (1 - spec["beta2"]) ** 0.5)
    reach = StepReach(dict(method.model.named_parameters()), case.device, growth)
    out = {}
    for step in (1, 2):
        optimizer.zero_grad()
        loss = method(batch)["total"]
        loss.backward()
        reach.add(optimizer)
        out[f"optim.loss_before_step{step}"] = loss.detach()
        optim.clip_gradients(optimizer, spec["clip_global_norm"])
        optimizer.step()
    with torch.no_grad():
        out["optim.loss_after_step2"] = method(batch)["total"]
    parameters = dict(method.model.named_parameters())
    stepped = export_mapped(parameters, method.official_names())
    out |= {f"optim.step2.{name}": value for name, value in stepped.items()}
    return out | reach.tensors("optim.step2.", method.official_names())


def _preprocess(case: Case) -> dict[str, Tensor]:
    """The evaluation transform, the inverse mapping, and training steps with the recorded draws."""
    case = case.on_cpu()
    vocabulary = WordPiece.from_text(decode_bytes(case.inputs["vocab"]))
    out = _evaluation_samples(case, vocabulary)
    for prefix in training_samples(case.inputs):
        values = _training_sample(case, vocabulary, prefix)
        out |= {f"{prefix}{name}": value for name, value in values.items()}
    return out


def _evaluation_samples(case: Case, vocabulary: WordPiece) -> dict[str, Tensor]:
    data, size = case.inputs, case.spec["sizes"]["image_size"]
    transform = transforms.EvalTransform(size)
    owner = data["box_image"]
    samples = [
        transform(_sample(case, index, data["boxes"][owner == index], text))
        for index, text in enumerate(case.text("text_bytes"))
    ]
    geometry = [sample["geometry"] for sample in samples]
    network_boxes = cxcywh_to_xyxy(data["pred_boxes"]) * size
    ids, pad = vocabulary([sample["text"] for sample in samples], case.spec["sizes"]["max_tokens"])
    boxes = torch.zeros(len(owner), 4)
    for index, sample in enumerate(samples):
        boxes[owner == index] = xyxy_to_cxcywh(sample["boxes"].as_subclass(Tensor)) / size
    return {
        "test.image": torch.stack([sample["image"].as_subclass(Tensor) for sample in samples]),
        "test.masks": torch.cat([sample["masks"].as_subclass(Tensor) for sample in samples]),
        "test.valid": torch.stack([~sample["pad"] for sample in samples]).to(torch.uint8),
        "test.boxes": boxes,
        "test.offset": torch.tensor([frame.offset for frame in geometry]).long(),
        "test.ratio": torch.tensor([frame.scale[:1] for frame in geometry]),
        "test.text_ids": ids,
        "test.text_mask": (~pad).to(torch.uint8),
        "test.network_boxes": network_boxes,
        "test.original_boxes": torch.stack(
            [geometry[int(image)].to_original(box) for image, box in zip(owner, network_boxes, strict=True)]
        ),
    }


def _training_sample(case: Case, vocabulary: WordPiece, prefix: str) -> dict[str, Tensor]:
    recorded, sizes = under_prefix(case.inputs, prefix), case.spec["sizes"]
    text = case.text(f"{prefix}text_bytes")[0]
    sample = _replay(
        _sample(case, int(recorded["image_index"]), recorded["box"][None], text),
        {name: value.tolist() for name, value in under_prefix(recorded, "draw_").items()},
        sizes["image_size"],
    )
    ids, pad = vocabulary([sample["text"]], sizes["max_tokens"])
    return {
        "image": sample["image"].as_subclass(Tensor),
        "box": xyxy_to_cxcywh(sample["boxes"].as_subclass(Tensor))[0] / sizes["image_size"],
        "masks": sample["masks"].as_subclass(Tensor),
        "text_bytes": text_rows([sample["text"]])[0],
        "text_ids": ids[0],
        "text_mask": (~pad[0]).to(torch.uint8),
    }


def _sample(case: Case, index: int, boxes: Tensor, text: str) -> Sample:
    """The untransformed sample of the case's image ``index``, with its mask."""
    return raw_sample(case.inputs[f"raw_image.{index}"], boxes, text, case.inputs[f"raw_mask.{index}"][None])


def _replay(sample: Sample, draws: dict[str, Any], size: int) -> Sample:
    """The training pipeline with recorded draws; crop: (width, height, and left, top where a crop is possible)."""
    sample = transforms.resize(sample, int(draws["size"]), size)
    choices = transforms.crop_choices(sample, size)
    if choices is not None:
        _, _, left, top = draws["crop"]
        sample = transforms.crop(sample, left, top, choices.width, choices.height)
    if draws["flip"] < 0.5:
        sample = letterbox.flip(sample, whole_words=False)
    return letterbox.place(sample, size, draws["left"], draws["top"])
