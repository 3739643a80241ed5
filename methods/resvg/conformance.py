"""Conformance runner of ResVG: modes ``rec``, ``preprocess`` and ``steps-*``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from vgbench import optim
from vgbench.checkpoints.names import export_mapped
from vgbench.conform.case import Case
from vgbench.conform.helpers import (
    StepReach,
    decode_bytes,
    epoch_rates,
    raw_sample,
    text_rows,
    training_samples,
    under_prefix,
)
from vgbench.core.errors import UserError
from vgbench.layers.boxes import iou, xyxy_to_cxcywh
from vgbench.methods.resvg.checkpoint import official_names
from vgbench.methods.resvg.method import ResVG, original_boxes
from vgbench.methods.resvg.transforms import Draws, EvalTransform, TrainTransform
from vgbench.text.wordpiece import WordPiece
from vgbench.types import Batch, Geometry


def run(case: Case) -> dict[str, Tensor]:
    """The tensors of ``case`` under the names of its expected file.

    Raises:
        UserError: for a mode that is not one of ours.
    """
    mode = case.spec["mode"]
    if mode == "preprocess":
        return preprocess(case)
    # Adam divides by the size of the gradient, so that the rounding of nearly vanishing gradients is seen in the
    # weights; the plain attention kernel rounds as the official code does, the fused one does not.
    with sdpa_kernel(SDPBackend.MATH):
        if mode == "rec":
            return rec(case)
        if mode.startswith("steps-"):
            return steps(case)
    raise UserError(f"{case.path / 'case.yaml'}: mode {mode!r} is unknown; resvg has rec, preprocess and steps-*")


def build(case: Case) -> ResVG:
    """The method with the sizes, weights and loss weights of the case, in evaluation mode."""
    sizes = case.spec["sizes"]
    resnet, bert = sizes["resnet"], sizes["bert"]
    freeze = case.spec.get("recipe", {}).get("freeze", {})
    method = ResVG(
        image_size=sizes["image_size"],
        max_tokens=sizes["max_tokens"],
        freeze_epochs=freeze.get("epochs", 10),
        l1_weight=case.spec["loss_weights"]["l1"],
        giou_weight=case.spec["loss_weights"]["giou"],
        backbone={
            "depths": resnet["stage_blocks"],
            "planes": resnet["stage_planes"],
            "stem": resnet["stem_width"],
            "block": resnet["block"].split()[0],
        },
        bert={
            "vocab_size": bert["vocab_size"],
            "hidden_size": bert["hidden_size"],
            "layers": bert["layers"],
            "heads": bert["heads"],
            "intermediate_size": bert["intermediate_size"],
            "max_positions": bert["max_position_embeddings"],
            "token_types": bert["type_vocab_size"],
        },
        width=sizes["hidden_dim"],
        heads=sizes["heads"],
        encoder_layers=sizes["encoder_layers"],
        encoder_ffn=sizes["encoder_ffn"],
        stages=sizes["decoder_stages"],
        decoder_ffn=sizes["decoder_ffn"],
        averaged_layers=bert["averaged_last_layers"],
        prior_dim=sizes["prior_dim"],
        max_offset=sizes["relative_position"]["range"][1],
    )
    method.load_official(case.weights)
    return method.to(case.device).eval()


def batch(inputs: dict[str, Tensor], prefix: str = "") -> Batch:
    """The network input of a case."""
    boxes = inputs[f"{prefix}target_boxes"][:, None]
    return Batch(
        image=inputs[f"{prefix}image"],
        image_pad=inputs[f"{prefix}image_pad"].bool(),
        text_ids=inputs[f"{prefix}text_ids"],
        text_pad=inputs[f"{prefix}text_pad"].bool(),
        boxes=boxes,
        valid=torch.ones(boxes.shape[:2], dtype=torch.bool, device=boxes.device),
        auxiliary={"prior": inputs[f"{prefix}prior_feature"]},
    )


def gradients(method: ResVG) -> dict[str, Tensor]:
    """Gradients under the official names."""
    return export_mapped(
        {name: value.grad for name, value in method.model.named_parameters()}, official_names(method.model)
    )


def geometry_of(inputs: dict[str, Tensor]) -> list[Geometry]:
    """Where the images of a case lie on their canvases."""
    columns = (inputs[name].tolist() for name in ("ratio", "dxdy", "orig_size", "size"))
    return [
        Geometry(
            scale=(ratio[1], ratio[0]),
            offset=(shift[0], shift[1]),
            size=(size[0], size[1]),
            canvas=(canvas[0], canvas[1]),
        )
        for ratio, shift, size, canvas in zip(*columns, strict=True)
    ]


def rec(case: Case) -> dict[str, Tensor]:
    """One forward and backward pass, the boxes in the original image, and both without prior and without padding."""
    inputs, method = case.inputs, build(case)
    data = batch(inputs)
    output = method.network(data, attention=True)
    losses = method.losses(output, data)
    losses["total"].backward()
    assert output.feature_pad is not None and output.prior is not None
    assert output.relation_attention is not None and output.image_attention is not None
    post = original_boxes(output.boxes[-1], geometry_of(inputs))
    result = {
        "backbone_feat": output.features,
        "feat_pad": output.feature_pad.to(torch.uint8),
        "img_memory": output.memory.transpose(0, 1),
        "word_feat": output.words,
        "prior_query": output.prior,
        "verify_score": output.score.flatten(1).T[..., None],
        "disc_feat": output.discriminative.transpose(0, 1),
        "rpe_attn": output.relation_attention.flatten(0, 1),
        "decoder_hs": output.queries,
        "img_attn_last": output.image_attention,
        "aux_pred_boxes": output.boxes[:-1, :, None],
        "pred_boxes": output.boxes[-1, :, None],
        "post_boxes": post,
        "post_iou": iou(post, inputs["orig_boxes"]),
        **{f"loss.{name}": value for name, value in losses.items()},
        **{f"grad.{name}": value for name, value in gradients(method).items()},
    }
    with torch.no_grad():
        data.auxiliary["prior"] = torch.zeros_like(inputs["prior_feature"])
        result["noprior.pred_boxes"] = method.network(data).boxes[-1, :, None]
        data.auxiliary["prior"], data.image_pad = inputs["prior_feature"], None
        result["nopad.pred_boxes"] = method.network(data).boxes[-1, :, None]
    return result


def steps(case: Case) -> dict[str, Tensor]:
    """Some steps of the official recipe, and the learning rates of the shipped schedules."""
    spec, recipe, method = case.spec, case.spec["recipe"], build(case)
    base = recipe["lr"]["rest"]
    method.pretrained_lr = recipe["lr"]["bert"] / base
    options = dict(recipe["optimizer"])
    factory = partial(getattr(torch.optim, options.pop("type")), **options)
    optimizer = optim.build_optimizer(method.param_groups(base), factory)
    schedule = _schedule(recipe["schedule"])
    reach = StepReach(dict(method.model.named_parameters()), case.device)
    batches = [batch(case.inputs, f"step{number}.") for number in range(1, spec["procedure"]["steps"] + 1)]
    result = {}
    for number, (epoch, data) in enumerate(zip(spec["procedure"]["epoch_of_step"], batches, strict=True), start=1):
        method.on_step(epoch - 1, 0, 1)
        optim.set_learning_rate(optimizer, schedule(epoch - 1, 0, 1))
        optimizer.zero_grad()
        loss = method(data)["total"]
        loss.backward()
        reach.add(optimizer)
        result[f"optim.loss_before_step{number}"] = loss.detach()
        result[f"optim.grad_global_norm_step{number}"] = optim.clip_gradients(
            optimizer, recipe["clip_grad_norm"]["max_norm"]
        )
        result |= {f"optim.lr_step{number}.{g['name']}": torch.tensor(g["lr"]) for g in optimizer.param_groups}
        optimizer.step()
    with torch.no_grad():
        result[f"optim.loss_after_step{len(batches)}"] = method(batches[0])["total"]
    final = export_mapped(method.model.state_dict(), official_names(method.model))
    result |= {f"optim.step{len(batches)}.{name}": value for name, value in final.items()}
    result |= reach.tensors(f"optim.step{len(batches)}.", official_names(method.model))
    return result | _shipped_rates(spec["schedules"])


def _shipped_rates(schedules: dict[str, Any]) -> dict[str, Tensor]:
    """Learning rates of every epoch, by schedule and group."""
    result = {}
    for name, shipped in schedules.items():
        factors = _schedule(shipped)
        for group, rate in shipped["lr"].items():
            result[f"schedule.lr.{name}.{group}"] = epoch_rates(factors, rate, shipped["epochs"])
    return result


def _schedule(spec: dict[str, Any]) -> optim.WarmupMultiStep:
    """The step schedule of the case: a factor once ``step_epochs`` epochs are done."""
    return optim.WarmupMultiStep(
        milestones=range(spec["step_epochs"] + 1, spec["epochs"] + 1, spec["step_epochs"]), gamma=spec["factor"]
    )


class _Recorded(Draws):
    """Recorded draws of one training sample in place of random ones."""

    def __init__(self, draws: dict[str, Tensor]) -> None:
        self._values = {name: value.reshape(-1).tolist() for name, value in draws.items()}
        crops = draws.get("crops")
        if crops is not None:
            for column, name in enumerate(("crop_width", "crop_height", "crop_top", "crop_left")):
                self._values[name] = crops[:, column].tolist()

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> float:
        return self._next(name, low, high)

    def choice(self, name: str, options: Sequence[Any]) -> Any:
        return options[options.index(self._values[name].pop(0))]

    def integer(self, name: str, low: int, high: int) -> int:
        return self._next(name, low, high)

    def permutation(self, name: str, size: int) -> list[int]:
        return self._values[name]

    def _next(self, name: str, low: float, high: float) -> Any:
        value = self._values[name].pop(0)
        if not low <= value <= high:
            raise ValueError(f"recorded {name} {value} is outside of {low}..{high}")
        return value


def preprocess(case: Case) -> dict[str, Tensor]:
    """The evaluation transform, the inverse mapping, and the training samples with the recorded draws."""
    case = case.on_cpu()
    tokenizer = WordPiece.from_text(decode_bytes(case.inputs["vocab"]))
    result = _evaluation_samples(case, tokenizer)
    for prefix in training_samples(case.inputs):
        values = _training_sample(case, tokenizer, prefix)
        result |= {f"{prefix}{name}": value for name, value in values.items()}
    return result


def _evaluation_samples(case: Case, tokenizer: WordPiece) -> dict[str, Tensor]:
    inputs, sizes = case.inputs, case.spec["sizes"]
    side, owner = sizes["image_size"], inputs["box_image"]
    transform = EvalTransform(side)
    samples = [
        transform(raw_sample(inputs[f"raw_image.{number}"], inputs["boxes"][owner == number], text))
        for number, text in enumerate(case.text("text_bytes"))
    ]
    frames = [sample["geometry"] for sample in samples]
    ids, pad = tokenizer([sample["text"] for sample in samples], sizes["max_tokens"])
    no_mask = torch.zeros(side, side, dtype=torch.bool)
    return {
        "test.image": torch.stack([sample["image"].as_subclass(Tensor) for sample in samples]),
        "test.image_pad": torch.stack([sample.get("pad", no_mask) for sample in samples]),
        "test.boxes": xyxy_to_cxcywh(torch.cat([sample["boxes"].as_subclass(Tensor) for sample in samples])) / side,
        "test.dxdy": torch.tensor([frame.offset for frame in frames]),
        "test.ratio": torch.tensor([frame.scale[::-1] for frame in frames]),
        "test.orig_size": torch.tensor([frame.size for frame in frames]).float(),
        "test.size": torch.tensor([frame.canvas for frame in frames]).float(),
        "test.original_boxes": original_boxes(inputs["pred_boxes"][:, 0], [frames[index] for index in owner.tolist()]),
        "test.text_ids": ids,
        "test.text_mask": ~pad,
    }


def _training_sample(case: Case, tokenizer: WordPiece, prefix: str) -> dict[str, Tensor]:
    sizes, recorded = case.spec["sizes"], under_prefix(case.inputs, prefix)
    side = sizes["image_size"]
    augment = TrainTransform(
        side,
        long_sizes=sizes["long_sizes"],
        short_sizes=sizes["short_sizes"],
        crop_min=sizes["crop_min"],
        crop_max=sizes["crop_max"],
        crop_iou=sizes["crop_iou"],
        crop_tries=sizes["crop_tries"],
        crop_p=1 - sizes["branch_p"],
        jitter_p=sizes["jitter_p"],
        flip_p=sizes["flip_p"],
        jitter=sizes["jitter"],
        draws=_Recorded(under_prefix(recorded, "draw_")),
    )
    image = case.inputs[f"raw_image.{int(recorded['image_index'])}"]
    sample = augment(raw_sample(image, recorded["box"][None], case.text(f"{prefix}text_bytes")[0]))
    ids, pad = tokenizer([sample["text"]], sizes["max_tokens"])
    return {
        "image": sample["image"].as_subclass(Tensor),
        "box": xyxy_to_cxcywh(sample["boxes"].as_subclass(Tensor)[0]) / side,
        # ``geometry`` tells where the original image would begin; the case asks where the cropped one does.
        "dxdy": torch.cat([recorded["draw_left"].view(1), recorded["draw_top"].view(1)]).float(),
        "text_bytes": text_rows([sample["text"]])[0],
        "text_ids": ids[0],
        "text_mask": ~pad[0],
    }
