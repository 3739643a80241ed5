"""ResNet feature extractor: torchvision's residual blocks with configurable depth and width, no classifier.

Parameter names are those of torchvision's ``ResNet`` (``conv1``, ``bn1``, ``layer1.0.conv1``, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FrozenBatchNorm2d as EagerFrozenBatchNorm2d

__all__ = ["ResNet"]


class FrozenBatchNorm2d(EagerFrozenBatchNorm2d):
    """Batch norm as fixed scale and shift, in one kernel."""

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


_BLOCKS: dict[str, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}
_NORMS: dict[str, Callable[[int], nn.Module]] = {"frozen_batch": FrozenBatchNorm2d, "batch": nn.BatchNorm2d}


class ResNet(nn.Module):
    """Image [B, 3, H, W] -> features [B, ``out_channels``, H / 32, W / 32].

    Args:
        depths: residual blocks per stage; (3, 4, 6, 3) is ResNet-50, (3, 4, 23, 3) ResNet-101.
        planes: inner width per stage; a bottleneck block puts out four times as much.
        stem: width of the first convolution.
        block: "bottleneck" (stride on the 3x3 convolution) or "basic" (ResNet-18/34).
        norm: "frozen_batch": batch norm as fixed scale and shift (DETR); "batch": trained, for training from scratch.
        frozen_stages: so many parts from the image on never train: 1 the stem, 2 the stem and stage 1 (DETR), ...

    Source: He et al., CVPR 2016; DETR's backbone.
    """

    def __init__(
        self,
        depths: Sequence[int] = (3, 4, 6, 3),
        planes: Sequence[int] = (64, 128, 256, 512),
        stem: int = 64,
        block: Literal["bottleneck", "basic"] = "bottleneck",
        norm: Literal["frozen_batch", "batch"] = "frozen_batch",
        frozen_stages: int = 2,
    ) -> None:
        super().__init__()
        kind, norm_layer = _BLOCKS[block], _NORMS[norm]
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = norm_layer(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        width = stem
        for number, (depth, plane) in enumerate(zip(depths, planes, strict=True), start=1):
            stride = 1 if number == 1 else 2
            blocks: list[nn.Module] = []
            for index in range(depth):
                step = stride if index == 0 else 1
                shortcut = None
                if step != 1 or width != plane * kind.expansion:
                    convolution = nn.Conv2d(width, plane * kind.expansion, 1, stride=step, bias=False)
                    shortcut = nn.Sequential(convolution, norm_layer(plane * kind.expansion))
                blocks.append(kind(width, plane, step, shortcut, norm_layer=norm_layer))
                width = plane * kind.expansion
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        self.out_channels = width
        self.stages = [f"layer{number}" for number in range(1, len(depths) + 1)]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for name in ["conv1", *self.stages][:frozen_stages]:
            self.get_submodule(name).requires_grad_(False)
        if frozen_stages:
            self.bn1.requires_grad_(False)

    def grid(self, side: int) -> int:
        """Cells along a side of so many pixels: halved, and rounded up, by the stem (twice) and each further stage."""
        for _ in range(len(self.stages) + 1):
            side = -(-side // 2)
        return side

    def forward(self, image: Tensor) -> Tensor:
        if image.is_cuda:  # the layout of the tensor cores; weights follow
            image = image.to(memory_format=torch.channels_last)
        x = self.maxpool(self.relu(self.bn1(self.conv1(image))))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return x
