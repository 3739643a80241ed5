"""Masks from boxes: a promptable segmenter of transformers (SAM, SAM 2 and their kin) from a local folder."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

from vgbench.core.errors import UserError
from vgbench.core.hub import Address, is_address, local_path
from vgbench.data import rle

Picture = Any  # PIL.Image.Image


def folder_title(place: str) -> str:
    """What tables call the model in a folder, or of a name on the Hub."""
    return Address.parse(place).repo.rpartition("/")[2] if is_address(place) else local_path(place).resolve().name


class Segmenter(nn.Module):
    """One mask per box, as the model's own processor prepares and post-processes it.

    Args:
        folder: with config.json, weights and the processor's files, or a name on the Hub (``hf://ORGANISATION/NAME``).

    Raises:
        UserError: if the folder is missing or incomplete, or holds a model of another kind.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        from transformers import AutoModelForMaskGeneration, AutoProcessor
        from transformers.models.auto.modeling_auto import MODEL_FOR_MASK_GENERATION_MAPPING_NAMES as KINDS

        path = local_path(folder)
        try:
            kind = json.loads((path / "config.json").read_text(encoding="utf-8")).get("model_type")
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(
                f"{path}: no readable config.json ({error}); method.segmenter= is a folder that save_pretrained() wrote"
            ) from None
        if kind not in KINDS:
            raise UserError(f"{path}: model type {kind!r} is no promptable segmenter; there are: {', '.join(KINDS)}")
        try:
            self.processor = AutoProcessor.from_pretrained(path, local_files_only=True, trust_remote_code=False)
            self.model = AutoModelForMaskGeneration.from_pretrained(
                path, local_files_only=True, trust_remote_code=False, use_safetensors=True
            ).eval()
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{path}: transformers cannot read the segmenter or its processor: {reason}") from error
        self.name = folder_title(folder)

    def union(self, picture: Picture, boxes: Tensor) -> rle.RLE:
        """The union of the masks of some boxes as COCO RLE; empty where there is no box.

        Args:
            picture: RGB.
            boxes: [n, 4] xyxy in pixels of the picture.
        """
        width, height = picture.size
        mask = torch.zeros(height, width, dtype=torch.bool)
        if len(boxes):
            mask = self._masks(picture, boxes).any(0)
        return rle.encode(mask.numpy())

    @torch.no_grad()
    def _masks(self, picture: Picture, boxes: Tensor) -> Tensor:
        """bool [n, height, width]."""
        inputs = self.processor(images=picture, input_boxes=[boxes.double().tolist()], return_tensors="pt")
        sizes = [inputs["original_sizes"]]
        if "reshaped_input_sizes" in inputs:  # SAM pads behind the resized image, its successors stretch it
            sizes.append(inputs["reshaped_input_sizes"])
        device, dtype = next(self.model.parameters()).device, next(self.model.parameters()).dtype
        prompts = {
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
            if name in ("pixel_values", "input_boxes")
        }
        output = self.model(**prompts, multimask_output=False)
        (masks,) = self.processor.post_process_masks(output.pred_masks.float().cpu(), *(size.cpu() for size in sizes))
        return masks[:, 0].bool()
