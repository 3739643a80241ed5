"""AMC's conformance cases: training step, Grad-CAM evaluation, preprocessing, optimisation steps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vgbench.conform.case import Case
from vgbench.methods.amc import heat as decisions
from vgbench.methods.amc.method import AMC, LOSS_NAMES
from vgbench.methods.amc.schedule import SteppedWarmupCosine
from vgbench.methods.amc.transforms import (
    ColourDraws,
    EvalTransform,
    TrainTransform,
    augment_colour,
    box_masks,
    choose_box,
    clamp_boxes,
)
from vgbench.metrics.boxes import iou_inclusive_intersection
from vgbench.optim import build_optimizer, set_learning_rate
from vgbench.text.wordpiece import WordPiece


def _replay(recorded: Iterator[int], count: int) -> int:
    return next(recorded)


def run(case: Case) -> dict[str, Tensor]:
    modes = {"train": _train, "gradcam": _gradcam, "preprocess": _preprocess, "steps-train": _steps}
    return modes[case.spec["mode"]](case)


def build(case: Case, **options: Any) -> AMC:
    """The method with the sizes of the case, its weights loaded, in evaluation mode."""
    sizes, settings = case.spec["sizes"], case.spec["settings"]
    checkpoint_size = sizes.get("checkpoint_image_size", sizes["image_size"])
    names = {
        "alpha": "alpha",
        "margin_mean": "margin_mean",
        "margin_max": "margin_max",
        "weight_mean": "weight_mean",
        "weight_max": "weight_max",
    }
    options |= {ours: settings[theirs] for ours, theirs in names.items() if theirs in settings}
    if settings.get("mlm_distill_log_softmax_dim", 1) != 1:
        options["mlm_distill_axis"] = "vocabulary"
    method = AMC(
        image_size=checkpoint_size,
        eval_size=sizes["image_size"],
        patch_size=sizes["patch_size"],
        vision_width=sizes["vision_width"],
        vision_depth=sizes["vision_depth"],
        vision_heads=sizes["vision_heads"],
        vision_mlp_ratio=sizes["vision_mlp_ratio"],
        text_width=sizes["text_hidden"],
        text_layers=sizes["text_layers"],
        text_heads=sizes["text_heads"],
        text_ffn=sizes["text_ffn"],
        max_positions=sizes["max_position_embeddings"],
        vocab_size=sizes["vocab_size"],
        fusion_layer=sizes["fusion_layer"],
        embed_dim=sizes["embed_dim"],
        queue_size=sizes["queue_size"],
        momentum=sizes["momentum"],
        pad_id=sizes["pad_token_id"],
        cls_id=sizes["cls_token_id"],
        mask_id=sizes["mask_token_id"],
        gradcam_layer=settings.get("gradcam_layer", settings.get("block_num")),
        **options,
    )
    method.load_official(case.weights)
    return method.to(case.device).eval()


def _losses(method: AMC, inputs: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The training step with the recorded draws of the inputs under ``prefix``."""
    get = {name.removeprefix(prefix): value for name, value in inputs.items() if name.startswith(prefix)}
    return method.training_losses(
        get["image"],
        get["text_ids"],
        get["text_pad"].bool(),
        get["target_masks"],
        get["gt_mask_indicator"].bool(),
        (get["itm_negative_image_index"], get["itm_negative_text_index"]),
        (get["mlm_input_ids"], get["mlm_labels"]),
    )


def _train(case: Case) -> dict[str, Tensor]:
    from vgbench.methods.amc.loss import negative_weights

    method = build(case)
    result = _losses(method, case.inputs)
    out = {name: value for name, value in result.items() if name not in LOSS_NAMES}
    out |= {f"loss.{name}": result[name] for name in LOSS_NAMES}
    selected = case.inputs["gt_mask_indicator"].bool()
    for name in ("gradcam_normalised", "gradcam_upsampled"):
        out[name] = result[name][selected]
    out["itm_weights_t2i"] = negative_weights(result["sim_t2i"])
    out["itm_weights_i2t"] = negative_weights(result["sim_i2t"])
    parameters = dict(method.network.named_parameters())
    for prefix, loss in (("grad.", "total"), ("grad_gcam.", "gcam_masked")):
        names = [name.removeprefix(prefix) for name in case.expected if name.startswith(prefix)]
        gradients = torch.autograd.grad(result[loss], [parameters[name] for name in names], retain_graph=True)
        out |= {f"{prefix}{name}": value for name, value in zip(names, gradients, strict=True)}
    out |= {f"after.{name}": value for name, value in method.network.state_dict().items()}
    return out


def _gradcam(case: Case) -> dict[str, Tensor]:
    settings, inputs = case.spec["settings"], case.inputs
    method = build(case, itc_block=settings.get("itc_block_num", 0), heat="itc")
    image = inputs["image"]
    arguments = (
        image,
        torch.arange(len(image), device=image.device),
        inputs["text_ids"],
        inputs["text_pad"].bool(),
    )
    out = method.explain_matching(*arguments)
    grid = (image.shape[-2] // method.patch_size, image.shape[-1] // method.patch_size)
    out["pos_embed_interpolated"] = method.network.visual_encoder.positions(grid)
    if "itc_block_num" in settings:
        out["gradcam_itc"] = method.explain_similarity(*arguments)["gradcam"]
    maps = [
        decisions.enlarge(heat, tuple(size))
        for heat, size in zip(out["gradcam"].cpu(), inputs["image_sizes"].tolist(), strict=True)
    ]
    out |= {f"heatmap.{number}": heat for number, heat in enumerate(maps)}
    peaks = [decisions.peak(heat) for heat in maps]
    out["peak_xy"] = torch.tensor(peaks)
    out["hit_point"] = torch.tensor(
        [
            _strictly_inside(point, inputs["target_boxes"][inputs["target_index"] == number].cpu())
            for number, point in enumerate(peaks)
        ]
    )
    if "proposals" in inputs:
        proposals = inputs["proposals"].cpu()
        out["proposal_scores"] = torch.stack(
            [decisions.proposal_scores(heat, boxes) for heat, boxes in zip(maps, proposals, strict=True)]
        )
        best = torch.cat([decisions.rank(heat, boxes)[0][:1] for heat, boxes in zip(maps, proposals, strict=True)])
        out["pred_boxes"] = torch.cat([best[:, :2], best[:, 2:] - best[:, :2]], dim=1)
        targets = inputs["target_boxes"].cpu()
        out["pred_iou"] = torch.from_numpy(iou_inclusive_intersection(best.numpy(), targets.numpy()))
        out["hit_proposal"] = out["pred_iou"] >= settings["iou_threshold"]
    return out


def _strictly_inside(point: tuple[int, int], boxes: Tensor) -> bool:
    """Whether (x, y) lies strictly inside any of the boxes [n, 4] xyxy."""
    x, y = point
    return bool(((boxes[:, 0] < x) & (x < boxes[:, 2]) & (boxes[:, 1] < y) & (y < boxes[:, 3])).any())


def _steps(case: Case) -> dict[str, Tensor]:
    spec, inputs = case.spec, case.inputs
    recipe, procedure = spec["recipe"], spec["procedure"]
    method = build(case)
    base = recipe["schedule"]["lr"]
    optimiser = recipe["optimizer"]
    optimizer = build_optimizer(
        method.param_groups(base),
        partial(
            torch.optim.AdamW,
            betas=tuple(optimiser["betas"]),
            eps=optimiser["eps"],
            weight_decay=optimiser["weight_decay"],
            amsgrad=optimiser["amsgrad"],
        ),
    )
    schedule = _schedule(recipe["schedule"])
    names = [group["name"] for group in optimizer.param_groups]
    steps, per_epoch = procedure["steps"], procedure["iterations_per_epoch"]
    out: dict[str, Tensor] = {}
    for number, epoch in enumerate(procedure["epoch_of_step"]):
        step, key = number % per_epoch, f"step{number + 1}"
        set_learning_rate(optimizer, schedule(epoch - 1, step, per_epoch))
        method.on_step(epoch - 1, step, per_epoch)
        for group in optimizer.param_groups:
            out[f"optim.lr_{key}.{group['name']}"] = torch.tensor(group["lr"])
        out[f"optim.alpha_{key}"] = method.alpha.clone()
        total = _losses(method, inputs, f"{key}.")["total"]
        out[f"optim.loss_before_{key}"] = total.detach()
        optimizer.zero_grad()
        total.backward()
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        out[f"optim.grad_global_norm_{key}"] = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        optimizer.step()
    key = f"step{steps}"
    for name, value in method.network.state_dict().items():
        kind = "queue" if name in ("image_queue", "text_queue", "queue_ptr_img", "queue_ptr_txt") else "optim"
        kind = "momentum" if "_m." in name else kind
        out[f"{kind}.{key}.{name}"] = value.clone()
    method.alpha.fill_(method.full_alpha)
    out[f"optim.loss_after_{key}"] = _losses(method, inputs, "step1.")["total"].detach()
    for title, shipped in spec["schedules"].items():
        factors, count = _schedule(shipped), shipped["first_epoch_iterations"]
        epochs = [factors(epoch, 0, count) * shipped["lr"] for epoch in range(shipped["epochs"])]
        first = [factors(0, step, count) * shipped["lr"] for step in range(count)]
        for name in names:
            out[f"schedule.lr.{title}.{name}"] = torch.tensor(epochs)
            out[f"schedule.lr.{title}_first_epoch.{name}"] = torch.tensor(first)
        alphas = []
        for step in range(count):
            method.on_step(0, step, count)
            alphas.append(method.alpha.clone())
        out[f"schedule.alpha.{title}_first_epoch"] = torch.stack(alphas)
    return out


def _schedule(spec: dict[str, Any]) -> SteppedWarmupCosine:
    return SteppedWarmupCosine(
        epochs=spec["epochs"],
        warmup=spec["warmup_lr"] / spec["lr"],
        final=spec["min_lr"] / spec["lr"],
        warmup_steps=spec["warmup_steps"],
        interval=spec["iterations_per_warmup_step"],
    )


def _preprocess(case: Case) -> dict[str, Tensor]:
    sizes, inputs = case.spec["sizes"], case.inputs
    tokenizer = WordPiece.from_text(bytes(inputs["vocab"].tolist()).decode(), sep=False)
    words, size = sizes["max_words"], sizes["image_size"]
    raw = [inputs[f"raw_image.{number}"].permute(2, 0, 1) for number in range(len(inputs["heat"]))]
    texts = case.text("text_bytes")
    boxes = [inputs[f"phrase_boxes.{number}"] for number in range(len(raw))]

    def evaluate(transform: EvalTransform) -> tuple[Tensor, list[str]]:
        samples = [transform({"image": _image(image), "text": text}) for image, text in zip(raw, texts, strict=True)]
        return torch.stack([sample["image"] for sample in samples]), [sample["text"] for sample in samples]

    out: dict[str, Tensor] = {}
    out["test.image"], clean = evaluate(EvalTransform(size, "pillow_bicubic", words["test"]))
    out["test.clean_text_bytes"] = _bytes(clean)
    ids, pad = tokenizer(clean)
    out["test.text_ids"], out["test.text_mask"] = ids, ~pad
    flickr, clean = evaluate(EvalTransform(sizes["flickr_size"], "opencv", words["flickr"]))
    out["test.flickr_image_stride4"] = flickr[..., ::4, ::4]
    out["test.flickr_clean_text_bytes"] = _bytes(clean)
    peaks = [
        decisions.peak(decisions.enlarge(heat, (image.shape[-2], image.shape[-1])))
        for heat, image in zip(inputs["heat"], raw, strict=True)
    ]
    out["test.peak"] = torch.tensor(peaks)
    out["test.point_correct"] = torch.tensor([_strictly_inside(p, b) for p, b in zip(peaks, boxes, strict=True)])

    def shorten(text: str) -> str:
        return tokenizer.truncate(text, sizes["max_tokens_train"] - 1)

    train = TrainTransform(size, words["train"], shorten)
    captions = []
    for number in range(sum(name.endswith(".image_index") for name in inputs)):
        draws = {
            name.removeprefix(f"train.{number}."): value
            for name, value in inputs.items()
            if name.startswith(f"train.{number}.")
        }
        image = raw[int(draws["image_index"])]
        original = (image.shape[-2], image.shape[-1])
        recorded = iter(draws["draw_box"].tolist())
        candidates = clamp_boxes(draws["boxes"], original)
        chosen = candidates[[choose_box(candidates, partial(_replay, recorded))]]
        jitter = bool(draws["draw_jitter"] < sizes["jitter_p"])
        colour = ColourDraws(
            flip=bool(draws["draw_flip"] < sizes["flip_p"]),
            gray=bool(draws["draw_gray"] < sizes["gray_p"]),
            jitter=tuple(draws["draw_jitter_factors"].tolist()) if jitter else None,
        )
        pixels, masks = augment_colour(image, box_masks(chosen, original), size, colour)
        text = case.text(f"train.{number}.text_bytes")[int(draws["draw_caption"])]
        sample = train.finish({"image": _image(image), "text": text}, pixels, masks, text)
        out[f"train.{number}.image"] = sample["image"]
        out[f"train.{number}.mask"] = masks[0]
        out[f"train.{number}.indicator"] = torch.tensor([len(sample["boxes"])])
        out[f"train.{number}.clean_text_bytes"] = _bytes([sample["text"]])[0]
        captions.append(sample["text"])
    ids, pad = tokenizer(captions)
    out["train.text_ids"], out["train.text_mask"] = ids, ~pad
    out["train.truncated_text_ids"] = tokenizer([shorten(clean[2])])[0]
    return out


def _image(image: Tensor) -> Any:
    from torchvision import tv_tensors

    return tv_tensors.Image(image)


def _bytes(texts: list[str]) -> Tensor:
    """Texts as zero-padded UTF-8, uint8 [n, longest]."""
    encoded = [text.encode() for text in texts]
    width = max(map(len, encoded))
    return torch.tensor([list(text.ljust(width, b"\0")) for text in encoded], dtype=torch.uint8)
