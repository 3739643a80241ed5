"""Conformance parts that SimVG and ALVG share: batches, optimisation steps, preprocessing (case format: README)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from vgbench import optim
from vgbench.checkpoints.names import KeyEntry, export_mapped
from vgbench.conform.case import Case
from vgbench.conform.helpers import StepReach, epoch_rates, raw_sample, text_rows
from vgbench.method import GroundingMethod
from vgbench.methods.beit3.heads import detections
from vgbench.methods.beit3.transforms import LargeScaleJitter
from vgbench.types import Batch, Geometry


def method_options(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The options of :class:`vgbench.methods.beit3.method.BEiT3Method` in a case.yaml."""
    encoder, head = spec["model"]["encoder"], spec["model"]["head"]
    of_encoder = {
        "image_size": "image_size",
        "patch_size": "patch_size",
        "encoder_width": "embed_dim",
        "encoder_layers": "layers",
        "encoder_heads": "heads",
        "encoder_ffn": "ffn_dim",
        "vocab_size": "vocab_size",
        "max_text_positions": "max_text_positions",
        "drop_path": "drop_path_rate",
    }
    of_head = {
        "max_tokens": "max_token",
        "width": "embed_dim",
        "heads": "num_heads",
        "ffn": "decoder_ffn_dim",
        "decoder_layers": "num_decoder_layers",
        "query_layers": "num_query_generator_layers",
        "query_ffn": "query_generator_ffn_dim",
        "num_queries": "num_queries",
    }
    options = {ours: encoder[theirs] for ours, theirs in of_encoder.items()}
    return options | {ours: head[theirs] for ours, theirs in of_head.items()}


def batch_from_inputs(inputs: Mapping[str, Tensor], prefix: str = "") -> Batch:
    """The network input of a case; targets listed by sample become padded rows."""
    image = inputs[f"{prefix}image"]
    listed, index = inputs[f"{prefix}target_boxes"], inputs[f"{prefix}target_index"].tolist()
    size, rows = len(image), max([index.count(i) for i in set(index)], default=1)
    boxes = image.new_zeros(size, rows, 4)
    valid = torch.zeros(size, rows, dtype=torch.bool, device=image.device)
    masks = None
    if f"{prefix}target_masks" in inputs:
        masks = torch.zeros(size, rows, *image.shape[-2:], dtype=torch.uint8, device=image.device)
    for row, sample in enumerate(index):
        place = index[:row].count(sample)
        boxes[sample, place] = listed[row]
        valid[sample, place] = True
        if masks is not None:
            masks[sample, place] = inputs[f"{prefix}target_masks"][row]
    pad = inputs.get(f"{prefix}image_pad")
    canvas = (image.shape[-2], image.shape[-1])
    scales = inputs.get(f"{prefix}scale_factor", torch.ones(size, 4)).tolist()
    return Batch(
        image=image,
        text_ids=inputs[f"{prefix}text_ids"],
        text_pad=inputs[f"{prefix}text_pad"].bool(),
        boxes=boxes,
        valid=valid,
        masks=masks,
        image_pad=pad.bool() if pad is not None and pad.any() else None,
        geometry=[Geometry((s[0], s[1]), (0.0, 0.0), canvas, canvas) for s in scales],
    )


def matched_pairs(assignment: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Assignment [B, M] -> sample, query and target of every pair, by sample and then by query."""
    sample, target = (assignment >= 0).nonzero(as_tuple=True)
    query = assignment[sample, target]
    order = (sample * (int(assignment.max()) + 1) + query).argsort()
    return sample[order], query[order], target[order]


def run_steps(
    case: Case, method: GroundingMethod, entries: Sequence[KeyEntry], loss_of: Callable[[Batch], Tensor]
) -> dict[str, Tensor]:
    """Three steps of the official recipe, and every epoch's learning rate of every shipped schedule."""
    spec, recipe = case.spec, case.spec["recipe"]
    options = dict(recipe["optimizer"])
    factory = functools.partial({"Adam": optim.FusedAdam}[options.pop("type")], **options)
    optimizer = optim.build_optimizer(method.param_groups(recipe["lr"]["rest"]), factory)
    schedule = _schedule(recipe["schedule"])
    per_epoch = spec["procedure"]["iterations_per_epoch"]
    batches = [batch_from_inputs(case.inputs, f"step{k + 1}.") for k in range(spec["procedure"]["steps"])]
    result: dict[str, Tensor] = {}

    reach = StepReach(dict(method.named_parameters()), case.device)
    live = {**dict(method.named_parameters()), **dict(method.named_buffers())}
    average = {name: value.detach().clone() for name, value in live.items()}
    for k, (batch, epoch) in enumerate(zip(batches, spec["procedure"]["epoch_of_step"], strict=True)):
        optim.set_learning_rate(optimizer, schedule(epoch - 1, k % per_epoch, per_epoch))
        loss = loss_of(batch)
        optimizer.zero_grad()
        loss.backward()
        reach.add(optimizer)
        result[f"optim.grad_global_norm_step{k + 1}"] = optim.clip_gradients(
            optimizer, recipe["clip_grad_norm"]["max_norm"]
        )
        result[f"optim.loss_before_step{k + 1}"] = loss
        for group in optimizer.param_groups:
            result[f"optim.lr_step{k + 1}.{group['name']}"] = torch.tensor(group["lr"])
        optimizer.step()
        if recipe["ema"]:
            optim.ema_update(list(average.values()), list(live.values()), k, recipe["ema"]["factor"])

    constant = dict(case.weights)  # keys that no step changes keep their start value
    with torch.no_grad():
        result["optim.loss_after_step3"] = loss_of(batches[0])
        end = constant | export_mapped(method.state_dict(), entries)
        if recipe["ema"]:
            for name, value in live.items():
                value.copy_(average[name])
            result["ema.loss_after_step3"] = loss_of(batches[0])
            mean = constant | export_mapped(method.state_dict(), entries)
            result |= {f"ema.step3.{name}": value for name, value in mean.items()} | reach.tensors(
                "ema.step3.", entries
            )
    result |= {f"optim.step3.{name}": value for name, value in end.items()} | reach.tensors("optim.step3.", entries)

    for name, shipped in spec["schedules"].items():
        factor = _schedule(shipped)
        for group in method.param_groups(shipped["lr"]["rest"]):
            result[f"schedule.lr.{name}.{group['name']}"] = epoch_rates(factor, group["lr"], shipped["epochs"])
    return result


def _schedule(spec: Mapping[str, Any]) -> optim.Schedule:
    return optim.WarmupMultiStep(spec["milestones"], spec["warmup_epochs"], spec["decay_ratio"])


def run_preprocess(case: Case, method: GroundingMethod) -> dict[str, Tensor]:
    """The evaluation pipeline, the inverse mapping of predictions, and all training samples of a case."""
    case = case.on_cpu()
    inputs = case.inputs
    texts = case.text("text_bytes")
    transform = method.eval_transform()
    samples = []
    for i, text in enumerate(texts):
        mask = inputs.get(f"raw_mask.{i}")
        boxes = inputs["boxes"][inputs["box_image"] == i]
        samples.append(
            transform(raw_sample(inputs[f"raw_image.{i}"], boxes, text, None if mask is None else mask[None]))
        )
    owner = inputs["box_image"].tolist()
    row = {i: iter(sample["boxes"]) for i, sample in enumerate(samples)}
    result = {
        "test.image": torch.stack([sample["image"] for sample in samples]),
        "test.boxes": torch.stack([next(row[i]) for i in owner]),
        "test.scale_factor": torch.tensor([[*sample["geometry"].scale] * 2 for sample in samples]),
        "test.clean_text_bytes": text_rows([sample["text"] for sample in samples]),
    }
    if "raw_mask.0" in inputs:
        result["test.masks"] = torch.cat([sample["masks"] for sample in samples])

    side = case.spec["sizes"]["image_size"]
    boxes, scores = detections(inputs["pred_logits"], inputs["pred_boxes"], torch.tensor([side, side]))
    best = boxes[torch.arange(len(boxes)), scores.argmax(1)]
    result["test.network_boxes"] = best
    result["test.original_boxes"] = torch.stack(
        [samples[i]["geometry"].to_original(box) for i, box in zip(owner, best, strict=True)]
    )

    entries = sorted({name.rsplit(".", 1)[0] for name in inputs if name.startswith(("train.", "grec."))})
    for entry in entries:
        result |= _training_sample(case, method, entry)
    return result


def _training_sample(case: Case, method: GroundingMethod, entry: str) -> dict[str, Tensor]:
    inputs = case.inputs
    image_index = int(inputs[f"{entry}.image_index"])
    if f"{entry}.box" in inputs:  # large-scale jitter with recorded draws
        return _jittered_sample(case, method, entry, image_index)
    draw = int(inputs[f"{entry}.draw"])
    boxes, masks = inputs[f"{entry}.boxes"], inputs.get(f"{entry}.masks")
    category = inputs.get(f"{entry}.category")
    owner = inputs.get(f"{entry}.box_expression")
    mine = torch.ones(len(boxes), dtype=torch.bool) if owner is None else owner == draw
    text = case.text(f"{entry}.text_bytes")[draw]
    # The annotation of an expression without target is one zero box; it is a row like any other in the official
    # pipeline, and its category tells the loss to drop it.
    sample = method.eval_transform()(
        raw_sample(inputs[f"raw_image.{image_index}"], boxes[mine], text, None if masks is None else masks[mine])
    )
    result = {
        f"{entry}.boxes": sample["boxes"].as_subclass(Tensor),
        f"{entry}.clean_text_bytes": text_rows([sample["text"]])[0],
    }
    if masks is not None:
        result[f"{entry}.masks"] = sample["masks"].as_subclass(Tensor)
    if category is not None:
        result[f"{entry}.category"] = category[mine]
    return result


def _jittered_sample(case: Case, method: GroundingMethod, entry: str, image_index: int) -> dict[str, Tensor]:
    inputs = case.inputs
    draws = iter([float(inputs[f"{entry}.draw_scale"]), *inputs[f"{entry}.draw_offsets"].flatten().tolist()])
    sample = raw_sample(inputs[f"raw_image.{image_index}"], inputs[f"{entry}.box"][None], "")
    transform = method.train_transform()
    assert isinstance(transform, v2.Compose)
    result: dict[str, Tensor] = {}
    for step in transform.transforms:
        if isinstance(step, LargeScaleJitter):
            step.draw = functools.partial(next, draws)
            sample = step(sample)
            height, width = sample["image"].shape[-2:]
            result[f"{entry}.jittered_box"] = sample["boxes"].as_subclass(Tensor)[0]
            result[f"{entry}.jittered_size"] = torch.tensor([height, width])
        else:
            sample = step(sample)
    if next(draws, None) is not None:
        raise AssertionError(f"{entry}: not all recorded draws were used")
    new_height, new_width = sample["image"].shape[-2:]
    result[f"{entry}.image"] = sample["image"].as_subclass(Tensor)
    result[f"{entry}.box"] = sample["boxes"].as_subclass(Tensor)[0]
    result[f"{entry}.scale_factor"] = torch.tensor([new_width / width, new_height / height] * 2)
    return result
