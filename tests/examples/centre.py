"""The smallest method: one learned box, the same for every image. It shows the whole contract and beats nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from vgbench import Batch, GroundingMethod, LoadReport, Prediction, Transform
from vgbench.batches.transforms import Normalize, Resize
from vgbench.layers.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh


class Centre(GroundingMethod):
    """A box (cx, cy, w, h) in [0, 1], learned by L1 from the training boxes."""

    name: ClassVar[str] = "Centre"
    tasks: ClassVar[frozenset[str]] = frozenset({"rec"})
    wants_masks = False
    text_shape = (1, 10)

    def __init__(self, image_size: int = 64) -> None:
        super().__init__()
        self.image_size = image_size
        self.box = nn.Parameter(torch.zeros(4))

    def train_transform(self) -> Transform:
        return v2.Compose([Resize((self.image_size, self.image_size)), Normalize()])

    def eval_transform(self) -> Transform:
        return self.train_transform()

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        ids = torch.tensor([[len(text.split())] for text in texts])
        return ids, torch.zeros_like(ids, dtype=torch.bool)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        wanted = xyxy_to_cxcywh(batch.boxes[:, 0] / self.image_size)
        return {"total": (self.box.sigmoid() - wanted).abs().sum(1).mean()}

    def predict(self, batch: Batch) -> dict[str, list[Prediction]]:
        box = cxcywh_to_xyxy(self.box.sigmoid()[None]).cpu() * self.image_size
        return {"main": [Prediction(frame.to_original(box), torch.ones(1)) for frame in batch.geometry]}

    def param_groups(self, lr: float) -> list[dict[str, Any]]:
        return [{"name": "all", "params": [self.box], "lr": lr}]

    def load_official(self, state: Mapping[str, Tensor]) -> LoadReport:
        self.load_state_dict(dict(state))
        return LoadReport(used=tuple(state))
