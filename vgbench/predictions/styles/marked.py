"""Families that write numbers as text, in JSON, in brackets or between marks."""

from __future__ import annotations

from vgbench.predictions.coordinates import Coordinates
from vgbench.predictions.styles.base import AnswerStyle
from vgbench.predictions.styles.grammar import (
    bracketed_points,
    brackets,
    keyed,
    named,
    point_lists,
    point_tags,
    tagged,
)

_QWEN_TAGS = tagged(r"<\|box_start\|>", r"<\|box_end\|>")
_QWEN_JSON = keyed(("bbox_2d", "bbox"), ("point_2d", "point"))


class QwenVL(AnswerStyle):
    """Qwen-VL: ``<box>(x1,y1),(x2,y2)</box>``, shares of 1000 of the image.

    Source: "Inputs and Outputs" in the paper, https://arxiv.org/abs/2308.12966, and the evaluation script,
    https://github.com/QwenLM/Qwen-VL/blob/master/eval_mm/evaluate_grounding.py
    """

    name = "qwen-vl"
    coordinates = Coordinates(whole=1000)
    grammar = (tagged("<box>", "</box>"), brackets)
    shape = "<box>(x1,y1),(x2,y2)</box>"


class Qwen2VL(AnswerStyle):
    """Qwen2-VL: ``<|box_start|>(x1,y1),(x2,y2)<|box_end|>``, shares of 1000 of the image (not pixels).

    Source: section 2 of the paper, https://arxiv.org/abs/2409.12191, confirmed by its authors in
    https://github.com/QwenLM/Qwen3-VL/issues/866 (Qwen2.5-VL is the one that went to pixels).
    """

    name = "qwen2-vl"
    coordinates = Coordinates(whole=1000)
    grammar = (_QWEN_TAGS, _QWEN_JSON, brackets)
    shape = "<|box_start|>(x1,y1),(x2,y2)<|box_end|>"


class Qwen25VL(AnswerStyle):
    """Qwen2.5-VL: JSON with ``bbox_2d`` or ``point_2d``, pixels of the image as its processor resized it.

    The processor makes both sides multiples of 28 within its limits of pixels, so that the factor differs from image
    to image and from axis to axis. Source: the authors in https://github.com/QwenLM/Qwen3-VL/issues/676 ("the size
    after processer"), and https://arxiv.org/abs/2502.13923.
    """

    name = "qwen2.5-vl"
    coordinates = Coordinates(seen=True)
    grammar = (_QWEN_JSON, _QWEN_TAGS, point_tags)
    shape = '{"bbox_2d": [x1, y1, x2, y2]}'


class Qwen3VL(AnswerStyle):
    """Qwen3-VL: JSON with ``bbox_2d`` or ``point_2d``, shares of 1000 of the image.

    Source: https://github.com/QwenLM/Qwen3-VL/blob/main/cookbooks/2d_grounding.ipynb, which divides by 1000; see
    https://github.com/QwenLM/Qwen3-VL/issues/1741 for the remark of another page that the numbers end at 999.
    """

    name = "qwen3-vl"
    coordinates = Coordinates(whole=1000)
    grammar = (_QWEN_JSON, _QWEN_TAGS)
    shape = '{"bbox_2d": [x1, y1, x2, y2]}'


class InternVL(AnswerStyle):
    """InternVL 1.2 to 3.5: ``<box>[[x1, y1, x2, y2]]</box>``, shares of 1000 of the image.

    Source: https://internvl.readthedocs.io/en/latest/get_started/chat_data_format.html#grounding-detection-data and
    https://github.com/OpenGVLab/InternVL/blob/main/internvl_chat/eval/refcoco/evaluate_grounding.py, which takes the
    first four numbers in brackets, whatever stands around them.
    """

    name = "internvl"
    coordinates = Coordinates(whole=1000)
    grammar = (tagged("<box>", "</box>"), brackets)
    shape = "<box>[[x1, y1, x2, y2]]</box>"


class AllSeeing(AnswerStyle):
    """All-Seeing v2 (ASMv2): ``<box>[[x1, y1, x2, y2]]</box>``, shares of 999 of the image padded to a square.

    Source: the authors in https://github.com/OpenGVLab/all-seeing/issues/10 and issue 6 (padding is the default).
    """

    name = "asmv2"
    coordinates = Coordinates(whole=999, frame="square")
    grammar = (tagged("<box>", "</box>"), brackets)
    shape = "<box>[[x1, y1, x2, y2]]</box>"


class Molmo(AnswerStyle):
    """Molmo: ``<point x="10.5" y="20.1">`` and ``<points x1=... y1=...>``, percent of the image; points, no boxes.

    Source: the authors in https://huggingface.co/allenai/Molmo-7B-O-0924/discussions/1.
    """

    name = "molmo"
    coordinates = Coordinates(whole=100)
    grammar = (point_tags,)
    shape = '<point x="..." y="...">'
    numbers = False


class Molmo2(AnswerStyle):
    """Molmo 2: ``<points coords="1 1 073 160">`` (image, then number, x, y), shares of 1000; points, no boxes.

    Source: the model card, https://huggingface.co/allenai/Molmo2-8B.
    """

    name = "molmo2"
    coordinates = Coordinates(whole=1000)
    grammar = (point_lists,)
    shape = '<points coords="...">'
    numbers = False


class Shikra(AnswerStyle):
    """Shikra: ``[0.123,0.456,0.789,0.900]``, shares of the image padded to a square around it.

    Source: https://arxiv.org/abs/2306.15195 and the transform ``Expand2square``, which moves the boxes with the image,
    https://github.com/shikras/shikra/blob/main/mllm/dataset/utils/transform.py
    """

    name = "shikra"
    coordinates = Coordinates(whole=1, frame="square")
    grammar = (brackets, bracketed_points)
    shape = "[0.123,0.456,0.789,0.900]"


class LLaVA(AnswerStyle):
    """LLaVA 1.5: ``[0.12, 0.45, 0.78, 0.9]``, shares of the image padded to a square around it.

    Source: what was found out about its training data in https://github.com/haotian-liu/LLaVA/issues/606 and 822; the
    authors do not state it. For models that do not pad, state frame=image.
    """

    name = "llava"
    coordinates = Coordinates(whole=1, frame="square")
    grammar = (brackets,)
    shape = "[0.12, 0.45, 0.78, 0.9]"


class Ferret(AnswerStyle):
    """Ferret: ``cup [x1, y1, x2, y2]``, shares of 1000 of the image; points are ``[x, y]``.

    Source: ``VOCAB_IMAGE_W`` and ``resize_bbox`` in
    https://github.com/apple/ml-ferret/blob/main/ferret/eval/eval_refexp.py
    """

    name = "ferret"
    coordinates = Coordinates(whole=1000)
    grammar = (brackets, bracketed_points)
    shape = "[x1, y1, x2, y2]"


class CogVLM(AnswerStyle):
    """CogVLM, CogAgent: ``[[x0,y0,x1,y1]]`` with three digits, shares of 1000 of the image; several by semicolons.

    Source: https://arxiv.org/abs/2311.03079 and https://arxiv.org/abs/2312.08914 (normalised to 000 ... 999).
    """

    name = "cogvlm"
    coordinates = Coordinates(whole=1000)
    grammar = (brackets,)
    shape = "[[x0,y0,x1,y1]]"


class DeepSeekVL2(AnswerStyle):
    """DeepSeek-VL2: ``<|det|>[[x1, y1, x2, y2]]<|/det|>``, shares of 999 of the image.

    Source: ``parse_ref_bbox``, named in https://github.com/deepseek-ai/DeepSeek-VL2#readme, in
    https://github.com/deepseek-ai/DeepSeek-VL2/blob/main/deepseek_vl2/serve/app_modules/utils.py
    """

    name = "deepseek-vl2"
    coordinates = Coordinates(whole=999)
    grammar = (tagged(r"<\|det\|>", r"<\|/det\|>"), brackets)
    shape = "<|det|>[[x1, y1, x2, y2]]<|/det|>"


class GLM4V(AnswerStyle):
    """GLM-4.1V, 4.5V, 4.6V: ``<|begin_of_box|>[[x1,y1,x2,y2]]<|end_of_box|>``, shares of 1000 of the image.

    The kind of bracket varies. Source: "Grounding" in https://github.com/zai-org/GLM-V#readme.
    """

    name = "glm-4v"
    coordinates = Coordinates(whole=1000)
    grammar = (_QWEN_JSON, brackets, bracketed_points)
    shape = "<|begin_of_box|>[[x1,y1,x2,y2]]<|end_of_box|>"


class Gemini(AnswerStyle):
    """Gemini: JSON with ``box_2d`` as [ymin, xmin, ymax, xmax] or ``point`` as [y, x], shares of 1000 of the image.

    Source: https://ai.google.dev/gemini-api/docs/image-understanding
    """

    name = "gemini"
    coordinates = Coordinates(form="yxyx", whole=1000)
    grammar = (keyed(("box_2d", "bounding_box", "bbox", "box"), ("point",)),)
    shape = '{"box_2d": [ymin, xmin, ymax, xmax]}'


class MiniCPMV(AnswerStyle):
    """MiniCPM-V, MiniCPM-o: ``<box>x1 y1 x2 y2</box>``, shares of 1000 of the image.

    Source: the authors in https://github.com/OpenBMB/MiniCPM-V/issues/982 and issue 772.
    """

    name = "minicpm-v"
    coordinates = Coordinates(whole=1000)
    grammar = (tagged("<box>", "</box>"),)
    shape = "<box>x1 y1 x2 y2</box>"


class Moondream(AnswerStyle):
    """Moondream: ``{"x_min": 0.1, "y_min": 0.2, "x_max": 0.5, "y_max": 0.6}``, shares of the image.

    Source: https://docs.moondream.ai/skills/detect/
    """

    name = "moondream"
    coordinates = Coordinates(whole=1)
    grammar = (named,)
    shape = '{"x_min": ..., "y_min": ..., "x_max": ..., "y_max": ...}'


FAMILIES = (
    QwenVL,
    Qwen2VL,
    Qwen25VL,
    Qwen3VL,
    InternVL,
    AllSeeing,
    Molmo,
    Molmo2,
    Shikra,
    LLaVA,
    Ferret,
    CogVLM,
    DeepSeekVL2,
    GLM4V,
    Gemini,
    MiniCPMV,
    Moondream,
)
