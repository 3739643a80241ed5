"""AMC's conformance cases: training step, Grad-CAM evaluation, preprocessing, optimisation steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors

from vgbench.conform.case import Case
from vgbench.conform.helpers import StepReach, decode_bytes, epoch_rates, text_rows, training_samples, under_prefix
from vgbench.methods.amc import heat as decisions
from vgbench.methods.amc.gradcam import Expressions, explain_matching, explain_similarity
from vgbench.methods.amc.loss import negative_weights
from vgbench.methods.amc.method import AMC
from vgbench.methods.amc.schedule import SteppedWarmupCosine
from vgbench.methods.amc.step import Draws, Pairs, Trace
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
    names = ("alpha", "margin_mean", "margin_max", "weight_mean", "weight_max")
    options |= {name: settings[name] for name in names if name in settings}
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


def _losses(
    method: AMC, inputs: Mapping[str, Tensor], prefix: str = "", trace: Trace | None = None
) -> dict[str, Tensor]:
    """The training step with the recorded draws of the inputs under ``prefix``."""
    recorded = under_prefix(inputs, prefix)
    pairs = Pairs(recorded["image"], recorded["text_ids"], recorded["text_pad"].bool(), recorded["target_masks"])
    draws = Draws(
        selected=recorded["gt_mask_indicator"].bool(),
        negatives=(recorded["itm_negative_image_index"], recorded["itm_negative_text_index"]),
        masked_words=(recorded["mlm_input_ids"], recorded["mlm_labels"]),
    )
    return method.training_losses(pairs, draws, trace)


def _train(case: Case) -> dict[str, Tensor]:
    method = build(case)
    out: Trace = {}
    losses = _losses(method, case.inputs, trace=out)
    out |= {f"loss.{name}": value for name, value in losses.items()}
    selected = case.inputs["gt_mask_indicator"].bool()
    for name in ("gradcam_normalised", "gradcam_upsampled"):
        out[name] = out[name][selected]
    out["itm_weights_t2i"] = negative_weights(out["sim_t2i"])
    out["itm_weights_i2t"] = negative_weights(out["sim_i2t"])
    parameters = dict(method.network.named_parameters())
    for prefix, loss in (("grad.", "total"), ("grad_gcam.", "gcam_masked")):
        names = [name.removeprefix(prefix) for name in case.expected if name.startswith(prefix)]
        gradients = torch.autograd.grad(losses[loss], [parameters[name] for name in names], retain_graph=True)
        out |= {f"{prefix}{name}": value for name, value in zip(names, gradients, strict=True)}
    out |= {f"after.{name}": value for name, value in method.network.state_dict().items()}
    return out


def _gradcam(case: Case) -> dict[str, Tensor]:
    settings, inputs = case.spec["settings"], case.inputs
    method = build(case, itc_block=settings.get("itc_block_num", 0), heat="itc")
    image = inputs["image"]
    index = torch.arange(len(image), device=image.device)
    expressions = Expressions(image, index, inputs["text_ids"], inputs["text_pad"].bool())
    out = explain_matching(method.network, expressions, method.options.gradcam_layer)
    vision = method.network.visual_encoder
    out["pos_embed_interpolated"] = vision.positions(vision.grid(image))
    if "itc_block_num" in settings:
        out["gradcam_itc"] = explain_similarity(method.network, expressions, method.options.itc_block)
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
    spec, inputs, method = case.spec, case.inputs, build(case)
    settings, procedure = spec["recipe"]["optimizer"], spec["procedure"]
    factory = partial(
        torch.optim.AdamW,
        betas=tuple(settings["betas"]),
        eps=settings["eps"],
        weight_decay=settings["weight_decay"],
        amsgrad=settings["amsgrad"],
    )
    optimizer = build_optimizer(method.param_groups(spec["recipe"]["schedule"]["lr"]), factory)
    schedule = _schedule(spec["recipe"]["schedule"])
    steps, per_epoch = procedure["steps"], procedure["iterations_per_epoch"]
    reach = StepReach(dict(method.network.named_parameters()), case.device)
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
        reach.add(optimizer)
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        out[f"optim.grad_global_norm_{key}"] = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        optimizer.step()
    for name, value in method.network.state_dict().items():
        kind = "queue" if name in ("image_queue", "text_queue", "queue_ptr_img", "queue_ptr_txt") else "optim"
        kind = "momentum" if "_m." in name else kind
        out[f"{kind}.step{steps}.{name}"] = value.clone()
    out |= reach.tensors(f"optim.step{steps}.")
    method.alpha.fill_(method.options.alpha)
    out[f"optim.loss_after_step{steps}"] = _losses(method, inputs, "step1.")["total"].detach()
    names = [group["name"] for group in optimizer.param_groups]
    return out | _schedules(method, spec["schedules"], names)


def _schedules(method: AMC, schedules: Mapping[str, Any], groups: Sequence[str]) -> dict[str, Tensor]:
    """Learning rates per epoch and within the first one, and alpha within it, of the shipped schedules."""
    out = {}
    for title, shipped in schedules.items():
        factors, count = _schedule(shipped), shipped["first_epoch_iterations"]
        first = [factors(0, step, count) * shipped["lr"] for step in range(count)]
        for group in groups:
            out[f"schedule.lr.{title}.{group}"] = epoch_rates(factors, shipped["lr"], shipped["epochs"], count)
            out[f"schedule.lr.{title}_first_epoch.{group}"] = torch.tensor(first)
        alphas = []
        for step in range(count):
            method.on_step(0, step, count)
            alphas.append(method.alpha.clone())
        out[f"schedule.alpha.{title}_first_epoch"] = torch.stack(alphas)
    return out


def _schedule(spec: Mapping[str, Any]) -> SteppedWarmupCosine:
    return SteppedWarmupCosine(
        epochs=spec["epochs"],
        warmup=spec["warmup_lr"] / spec["lr"],
        final=spec["min_lr"] / spec["lr"],
        warmup_steps=spec["warmup_steps"],
        interval=spec["iterations_per_warmup_step"],
    )


def _preprocess(case: Case) -> dict[str, Tensor]:
    case = case.on_cpu()
    tokenizer = WordPiece.from_text(decode_bytes(case.inputs["vocab"]), sep=False)
    images = [case.inputs[f"raw_image.{number}"].permute(2, 0, 1) for number in range(len(case.inputs["heat"]))]
    return _evaluation(case, tokenizer, images) | _training(case, tokenizer, images)


def _evaluation(case: Case, tokenizer: WordPiece, images: Sequence[Tensor]) -> dict[str, Tensor]:
    """Transforms of evaluation, and what is made of recorded heat maps."""
    sizes, words, texts = case.spec["sizes"], case.spec["sizes"]["max_words"], case.text("text_bytes")

    def evaluate(transform: EvalTransform) -> tuple[Tensor, list[str]]:
        samples = [
            transform({"image": tv_tensors.Image(image), "text": text})
            for image, text in zip(images, texts, strict=True)
        ]
        return torch.stack([sample["image"] for sample in samples]), [sample["text"] for sample in samples]

    pixels, clean = evaluate(EvalTransform(sizes["image_size"], "pillow_bicubic", words["test"]))
    flickr, flickr_clean = evaluate(EvalTransform(sizes["flickr_size"], "opencv", words["flickr"]))
    ids, pad = tokenizer(clean)
    peaks = [
        decisions.peak(decisions.enlarge(heat, (image.shape[-2], image.shape[-1])))
        for heat, image in zip(case.inputs["heat"], images, strict=True)
    ]
    hits = [_strictly_inside(peak, case.inputs[f"phrase_boxes.{number}"]) for number, peak in enumerate(peaks)]
    shorten = _shortener(case, tokenizer)
    return {
        "test.image": pixels,
        "test.clean_text_bytes": text_rows(clean),
        "test.text_ids": ids,
        "test.text_mask": ~pad,
        "test.flickr_image_stride4": flickr[..., ::4, ::4],
        "test.flickr_clean_text_bytes": text_rows(flickr_clean),
        "test.peak": torch.tensor(peaks),
        "test.point_correct": torch.tensor(hits),
        "train.truncated_text_ids": tokenizer([shorten(flickr_clean[2])])[0],
    }


def _training(case: Case, tokenizer: WordPiece, images: Sequence[Tensor]) -> dict[str, Tensor]:
    """The training transform with the recorded draws."""
    sizes, out = case.spec["sizes"], {}
    size = sizes["image_size"]
    train = TrainTransform(size, sizes["max_words"]["train"], _shortener(case, tokenizer))
    captions = []
    for prefix in training_samples(case.inputs):
        draws = under_prefix(case.inputs, prefix)
        image = images[int(draws["image_index"])]
        original = (image.shape[-2], image.shape[-1])
        candidates = clamp_boxes(draws["boxes"], original)
        box = candidates[[choose_box(candidates, partial(_replay, iter(draws["draw_box"].tolist())))]]
        jitter = bool(draws["draw_jitter"] < sizes["jitter_p"])
        colour = ColourDraws(
            flip=bool(draws["draw_flip"] < sizes["flip_p"]),
            gray=bool(draws["draw_gray"] < sizes["gray_p"]),
            jitter=tuple(draws["draw_jitter_factors"].tolist()) if jitter else None,
        )
        pixels, masks = augment_colour(image, box_masks(box, original), size, colour)
        text = case.text(f"{prefix}text_bytes")[int(draws["draw_caption"])]
        sample = train.finish({"image": tv_tensors.Image(image), "text": text}, pixels, masks, text)
        out[f"{prefix}image"] = sample["image"]
        out[f"{prefix}mask"] = masks[0]
        out[f"{prefix}indicator"] = torch.tensor([len(sample["boxes"])])
        out[f"{prefix}clean_text_bytes"] = text_rows([sample["text"]])[0]
        captions.append(sample["text"])
    ids, pad = tokenizer(captions)
    return out | {"train.text_ids": ids, "train.text_mask": ~pad}


def _shortener(case: Case, tokenizer: WordPiece) -> Callable[[str], str]:
    return partial(tokenizer.truncate, pieces=case.spec["sizes"]["max_tokens_train"] - 1)
