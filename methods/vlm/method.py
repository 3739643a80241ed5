"""Vision-language models of transformers as grounding methods: they write down where something is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vgbench.checkpoints.names import LoadReport
from vgbench.core.errors import UserError, require_extra
from vgbench.core.files import folder_state
from vgbench.core.hub import local_path
from vgbench.core.published import PublishedFile
from vgbench.methods.answering.journal import Words
from vgbench.methods.answering.method import AnsweringMethod, Question, Save, required
from vgbench.methods.answering.protocol import Protocol, protocol_for
from vgbench.methods.answering.protocol import names as protocol_names
from vgbench.methods.answering.segmenter import folder_title
from vgbench.methods.vlm.processing import model_type, own_resolution, pixel_limits, read_processor, seen_sizes

DTYPES = ("auto", "float32", "bfloat16", "float16")


class _Placed(nn.Module):
    """A model that accelerate has spread over devices: nobody else moves it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def _apply(self, fn: Any, recurse: bool = True) -> _Placed:
        return self


class VLM(AnsweringMethod):
    """An image-text-to-text model of transformers.

    Args:
        model: folder with config.json, the weights and the processor's files, or a name on the Hugging Face Hub
            (``hf://ORGANISATION/NAME``). No code in it is run.
        protocol: name of a protocol, or a file; None: the one for the model's type.
        prompt: another text than the protocol's, with ``{expression}``.
        style: another way of reading the words.
        system: another system prompt.
        min_pixels, max_pixels: limits of the picture as the model gets it; None: those of the protocol, or else of the
            model's processor.
        max_new_tokens: of an answer.
        dtype: "auto": the one that the weights are stored in; float32, bfloat16 or float16.
        device_map: "auto": accelerate spreads the model over all devices and the host's memory; None: it goes where the
            trainer puts it.
        attention: implementation of transformers, e.g. "sdpa" or "flash_attention_2"; None: its own choice.
        segmenter: folder of a promptable segmenter, for masks.
        captions: file with the caption of every phrase, for families that ground whole captions.

    Raises:
        UserError: if a folder is missing or incomplete, or no protocol is for the model's type.
    """

    name: ClassVar[str] = "VLM"
    handling_options: ClassVar[frozenset[str]] = frozenset({"device_map"})
    published_files = (
        PublishedFile(
            "Qwen2.5-VL-3B-Instruct",
            "a language model, for example",
            "method.model",
            "https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct",
            "hf://Qwen/Qwen2.5-VL-3B-Instruct",
        ),
        PublishedFile(
            "sam2-hiera-large",
            "a segmenter, for masks",
            "method.segmenter",
            "https://huggingface.co/facebook/sam2-hiera-large",
            "hf://facebook/sam2-hiera-large",
        ),
    )
    no_training = "method=vlm is evaluated only; use vgbench eval"

    def __init__(
        self,
        model: str | None = None,
        protocol: str | None = None,
        prompt: str | None = None,
        style: str | None = None,
        system: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        max_new_tokens: int | None = None,
        dtype: str = "auto",
        device_map: str | None = None,
        attention: str | None = None,
        segmenter: str | None = None,
        captions: str | None = None,
    ) -> None:
        place = required(model, "model", "a folder with a vision-language model of transformers")
        self.folder = local_path(place)
        kind = model_type(self.folder)
        changes = {"min_pixels": min_pixels, "max_pixels": max_pixels, "max_new_tokens": max_new_tokens}
        chosen = Protocol.read(_protocol_name(self.folder, kind, protocol))
        super().__init__(chosen.changed(prompt=prompt, style=style, system=system, **changes), segmenter, captions)
        if dtype not in DTYPES:
            raise UserError(f"method.dtype={dtype}: use one of {', '.join(DTYPES)}")
        if device_map is not None:
            require_extra("accelerate", "vlm", "method.device_map")
        self.dtype, self.device_map, self.attention = dtype, device_map, attention
        self.processor = read_processor(self.folder, self.protocol.min_pixels, self.protocol.max_pixels)
        self.processor.tokenizer.padding_side = "left"  # answers begin where questions end
        if self.protocol.chat and not _has_template(self.processor):
            raise UserError(
                f"{self.folder}: no chat template, which protocol {chosen.name} needs; add chat_template.jinja"
            )
        mean = getattr(self.processor.image_processor, "image_mean", None)
        if mean is not None and len(mean) == 3:
            self.fill = tuple(round(255 * value) for value in mean)  # type: ignore[assignment]
        self.title = folder_title(place)
        self.model: nn.Module | None = None
        self._state = folder_state(self.folder)

    @property
    def decoding(self) -> dict[str, Any]:
        return {
            "model": self.title,
            "files": self._state,
            "dtype": self.dtype,
            "max_new_tokens": self.protocol.max_new_tokens,
            "limits": pixel_limits(self.processor),
        }

    def ask(self, questions: Sequence[Question], save: Save) -> None:
        """In one batch, if the protocol allows."""
        size = len(questions) if self.protocol.batched else 1
        for start in range(0, len(questions), size):
            self._ask(questions[start : start + size], save)

    def _ask(self, questions: Sequence[Question], save: Save) -> None:
        """One batch; the seconds are shared among its answers."""
        generator = self.generator
        started = time.perf_counter()
        texts = [self._text(question.prompt) for question in questions]
        pictures = [[question.picture] for question in questions]
        inputs = self.processor(text=texts, images=pictures, padding=True, return_tensors="pt")
        sizes = seen_sizes(self.processor, inputs, len(questions))
        lengths = inputs["attention_mask"].sum(1).tolist()
        output = generator.generate(
            **_moved(inputs, generator),
            do_sample=False,
            num_beams=1,
            max_new_tokens=self.protocol.max_new_tokens,
            **_NO_SAMPLING,
        )
        if not generator.config.is_encoder_decoder:
            output = output[:, inputs["input_ids"].shape[1] :]
        answers = [self._cut(row) for row in output.cpu()]
        seconds = (time.perf_counter() - started) / len(questions)
        for question, ids, size, length in zip(questions, answers, sizes, lengths, strict=True):
            text = self.processor.tokenizer.decode(ids, skip_special_tokens=not self.protocol.special_tokens)
            broken = "length" if len(ids) >= self.protocol.max_new_tokens else ""
            save(question, Words(text.strip(), seconds, question.image, int(length), len(ids), size, broken))

    @property
    def generator(self) -> Any:
        """The model behind whatever places it.

        Raises:
            UserError: if no weights were loaded.
        """
        if self.model is None:
            raise UserError(f"{self.folder}: no weights were loaded; give checkpoint={self.folder}")
        return self.model.model if isinstance(self.model, _Placed) else self.model

    def _text(self, prompt: str) -> str:
        if not self.protocol.chat:
            return prompt
        turns: list[dict[str, Any]] = []
        if self.protocol.system is not None:
            turns.append({"role": "system", "content": [{"type": "text", "text": self.protocol.system}]})
        turns.append({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]})
        return str(self.processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))

    def _cut(self, ids: Tensor) -> list[int]:
        """An answer without what stands behind its end."""
        config, tokenizer = self.generator.generation_config, self.processor.tokenizer
        own_ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        ends = {*own_ends, tokenizer.eos_token_id, tokenizer.pad_token_id} - {None}
        numbers = ids.tolist()
        if self.generator.config.is_encoder_decoder:
            numbers = numbers[1:]  # what the decoder starts with
        return numbers[: next((place for place, number in enumerate(numbers) if number in ends), len(numbers))]

    def read_official(self, path: Path, ema: bool = True) -> dict[str, Tensor]:
        """The weights beside ``path``, read and placed by transformers, which knows several files and older names."""
        from transformers import AutoModelForImageTextToText

        load: Any = AutoModelForImageTextToText.from_pretrained  # returns a pair with output_loading_info
        options: dict[str, Any] = {"dtype": self.dtype, "local_files_only": True, "output_loading_info": True}
        options |= {"trust_remote_code": False, "use_safetensors": True}
        options |= {} if self.attention is None else {"attn_implementation": self.attention}
        options |= {} if self.device_map is None else {"device_map": self.device_map}
        try:
            with _without_bars():
                model, info = load(path.parent, **options)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{path.parent}: transformers cannot read it: {reason}") from error
        if info["missing_keys"]:
            raise UserError(f"{path}: has no weights for {sorted(info['missing_keys'])[0]!r}; is it the whole model?")
        model.eval().requires_grad_(False)
        self.model = model if self.device_map is None else _Placed(model)
        return dict(model.state_dict())

    def load_official(self, state: Mapping[str, Tensor]) -> LoadReport:
        """Nothing is left to do after :meth:`read_official`: no large model is held twice."""
        return LoadReport(used=tuple(state))

    def notes(self) -> list[str]:
        notes = super().notes()
        limits = pixel_limits(self.processor)
        own = "" if self.protocol.max_pixels or self.protocol.min_pixels else " (the processor's own)"
        if limits:
            notes.append("resolution: " + ", ".join(f"{key}={value}" for key, value in limits.items()) + own)
        else:
            notes.append(f"resolution: the processor's own ({', '.join(own_resolution(self.processor))})")
        config = self.generator.generation_config
        if getattr(config, "repetition_penalty", None) not in (None, 1.0):
            notes.append(f"repetition_penalty={config.repetition_penalty} (the model's generation_config.json)")
        dtype = next(self.generator.parameters()).dtype
        notes.append(f"weights in {str(dtype).removeprefix('torch.')}")
        return notes


#: What a folder's generation_config.json may say about sampling, which is not done.
_NO_SAMPLING: dict[str, Any] = {"temperature": None, "top_p": None, "top_k": None}


def _protocol_name(folder: Path, kind: str, protocol: str | None) -> str:
    """The protocol to use.

    Raises:
        UserError: if transformers has no such model, or no protocol is for it.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KINDS

    if kind not in KINDS:
        raise UserError(
            f"{folder}: model type {kind!r} is no image-text-to-text model of transformers; code in a folder is not "
            "run: take the model in transformers' own format"
        )
    name = protocol or protocol_for(kind)
    if name is None:
        raise UserError(
            f"{folder}: no protocol is for model type {kind!r}; state how it is asked and read: method.protocol=NAME "
            f"or FILE.yaml; there are: {', '.join(protocol_names())}"
        )
    return name


def _has_template(processor: Any) -> bool:
    return bool(getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None))


def _moved(inputs: Mapping[str, Any], model: Any) -> dict[str, Any]:
    """What the model takes of what its processor made, on its device, pictures in its precision."""
    parameter = next(model.parameters())
    optional = {"token_type_ids", "labels"} - ({"token_type_ids"} & set(signature(model.forward).parameters))
    return {
        name: value.to(parameter.device, parameter.dtype if value.is_floating_point() else None)
        if isinstance(value, torch.Tensor)
        else value
        for name, value in inputs.items()
        if name not in optional
    }


@contextmanager
def _without_bars() -> Iterator[None]:
    """Transformers draws no progress bars of its own meanwhile."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
