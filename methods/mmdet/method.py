"""Any grounding model of MMDetection 3 behind the contract of the suite: its own pipeline, its own post-processing."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors

from vgbench.checkpoints.names import LoadReport
from vgbench.core.errors import UserError, require_extra
from vgbench.core.published import PublishedFile
from vgbench.method import EvaluationOnly
from vgbench.types import Batch, Geometry, Prediction, Sample, Transform

#: What a grounding detector of MMDetection reads from a sample beside the image.
TEXT_KEYS = ("text", "custom_entities", "tokens_positive")


class _Canvas:
    """The untouched image in the corner of a square, so that images stack: MMDetection's pipeline resizes by itself."""

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, sample: Sample) -> Sample:
        image = sample["image"].as_subclass(Tensor)
        height, width = image.shape[-2:]
        if max(height, width) > self.side:
            raise UserError(f"an image of {width}x{height} pixels is larger than method.canvas={self.side}; raise it")
        geometry = Geometry((1.0, 1.0), (0.0, 0.0), (height, width), (self.side, self.side))
        padded = F.pad(image, (0, self.side - width, 0, self.side - height)).float()
        return {**sample, "image": tv_tensors.Image(padded), "geometry": geometry}  # type: ignore[typeddict-item]


def _without_recomputation(model: Any) -> None:
    """Switch off activation checkpointing, which saves memory in training only and wants fairscale."""
    for part, key, off in (("encoder", "num_cp", 0), ("backbone", "with_cp", False), ("backbone", "init_cfg", None)):
        if key in model.get(part, {}):
            model[part][key] = off


class MMDet(EvaluationOnly):
    """A detector of MMDetection that takes text.

    Args:
        config: its config file (.py), e.g. one of ``configs/mm_grounding_dino`` in MMDetection.
        entity: False: the sentence as a whole is what is looked for (Grounding DINO's way for referring expressions,
            ``tokens_positive = -1``); True: the sentence is the name of a class (GLIP).
        language_model: folder of the BERT that the config names (``bert-base-uncased``), where it cannot be downloaded.
        top: boxes that are kept per expression, best first.
        canvas: larger than every image's longer side, in pixels.

    Raises:
        UserError: if MMDetection is not installed, or the config file is missing or is none of a grounding model.
    """

    name: ClassVar[str] = "MMDetection"
    tasks = frozenset({"rec", "grec"})
    wants_masks = False
    text_shape = (1, 1)  # the detector reads the text itself
    file_options = frozenset({"language_model"})
    program_options = frozenset({"config"})
    published_files = (
        PublishedFile(
            "groundingdino_swint_ogc_mmdet-822d7e9d.pth",
            "Grounding DINO-T, configs/grounding_dino/grounding_dino_swin-t_pretrain_obj365_goldg_cap4m.py",
            "checkpoint",
            "https://download.openmmlab.com/mmdetection/v3.0/grounding_dino/groundingdino_swint_ogc_mmdet-822d7e9d.pth",
        ),
        PublishedFile(
            "bert-base-uncased",
            "language model of Grounding DINO and GLIP",
            "method.language_model",
            "https://huggingface.co/google-bert/bert-base-uncased",
        ),
    )
    no_training = "method=mmdet is evaluated only; train with MMDetection, then use vgbench eval"

    def __init__(
        self,
        config: str | None = None,
        entity: bool = False,
        language_model: str | None = None,
        top: int = 100,
        canvas: int = 1400,
    ) -> None:
        super().__init__()
        if config is None:
            raise UserError("method.config=FILE.py is missing: the config of a grounding model of MMDetection")
        apis = require_extra("mmdet.apis", "mmdet", "method=mmdet")
        transforms = require_extra("mmcv.transforms", "mmdet", "method=mmdet")
        utils = require_extra("mmdet.utils", "mmdet", "method=mmdet")
        configs = require_extra("mmengine.config", "mmdet", "method=mmdet")
        path = Path(config).expanduser()
        if not path.is_file():
            raise UserError(f"{path}: no such file; method.config= must be a config file of MMDetection")
        try:
            settings = configs.Config.fromfile(str(path))
        except Exception as error:  # a config is a program
            raise UserError(f"{path}: cannot be read as a config of MMDetection ({error})") from error
        if "language_model" not in settings.get("model", {}):
            raise UserError(f"{path}: model.language_model is missing; choose the config of a model that takes text")
        if settings.model.type == "GLIP" and not entity:
            raise UserError(f"{path}: GLIP looks for class names only; set method.entity=true")
        _without_recomputation(settings.model)
        if language_model is not None:
            folder = Path(language_model).expanduser()
            if not folder.is_dir():
                raise UserError(f"method.language_model={language_model}: no such folder; give that of a BERT model")
            settings.model.language_model.name = str(folder)
            if "lang_model_name" in settings.model.bbox_head:  # GLIP's head reads its size
                settings.model.bbox_head.lang_model_name = str(folder)
        try:
            # with a palette given it does not open the config's data set for one
            self.detector = apis.init_detector(settings, None, palette="random", device="cpu")
        except OSError as error:  # transformers' word for a model that is neither here nor on its hub
            name = settings.model.language_model.name
            raise UserError(
                f"{path}: the language model {name!r} cannot be loaded; give its folder: method.language_model=FOLDER"
            ) from error
        if not hasattr(self.detector.language_model.tokenizer, "batch_encode_plus"):
            raise UserError('MMDetection 3.3 calls what transformers 5 removed; pip install "transformers<5"')
        steps = copy.deepcopy(utils.get_test_pipeline_cfg(settings))
        steps[0].type = "mmdet.LoadImageFromNDArray"
        # configs that were written for detection do not hand on everything that the text needs
        meta_keys = steps[-1].get("meta_keys", ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"))
        steps[-1].meta_keys = tuple(dict.fromkeys((*meta_keys, *TEXT_KEYS)))
        self.pipeline = transforms.Compose(steps)
        self.title = path.stem
        self.entity, self.top, self.canvas = entity, top, canvas

    def eval_transform(self) -> Transform:
        return _Canvas(self.canvas)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        ids = torch.zeros(len(texts), 1, dtype=torch.int64)
        return ids, ids.bool()

    def predict(self, batch: Batch, outputs: Sequence[str] | None = None) -> dict[str, list[Prediction]]:
        preprocessor = self.detector.data_preprocessor
        if preprocessor.device != batch.image.device:  # it keeps a device of its own
            preprocessor.to(batch.image.device)
        predictions = []
        for image, frame, text in zip(batch.image.cpu(), batch.geometry, batch.texts, strict=True):
            height, width = frame.size
            pixels = image[:, :height, :width].flip(0).permute(1, 2, 0).to(torch.uint8).numpy()  # BGR
            data = {"img": pixels, "img_id": 0, "text": text, "custom_entities": self.entity}
            if not self.entity:
                data["tokens_positive"] = -1
            packed = self.pipeline(data)
            # one by one, as in MMDetection's own tests: an answer depends on how far the images beside it are padded
            one = {"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]}
            (result,) = self.detector.test_step(one)
            scores, order = result.pred_instances.scores.float().cpu().sort(descending=True, stable=True)
            boxes = result.pred_instances.bboxes.float().cpu()[order]
            predictions.append(Prediction(boxes[: self.top], scores[: self.top]))
        return {"main": predictions}

    def load_official(self, state: Mapping[str, Tensor]) -> LoadReport:
        """Every parameter of the detector must be in the file; what else is in it has no effect."""
        report = self.detector.load_state_dict(dict(state), strict=False)
        if report.missing_keys:
            raise UserError(
                f"no weights for {report.missing_keys[0]!r} of {self.title}; is it the config's checkpoint?"
            )
        extra = tuple(report.unexpected_keys)
        return LoadReport(used=tuple(name for name in state if name not in set(extra)), unused=extra)
