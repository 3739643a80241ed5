"""A language model behind a server as a grounding method: vLLM, SGLang, llama.cpp, or somebody's service."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor

from vgbench.checkpoints.names import LoadReport
from vgbench.core.errors import UserError
from vgbench.core.hub import local_path
from vgbench.methods.answering.journal import Words
from vgbench.methods.answering.method import AnsweringMethod, Question, Save, required
from vgbench.methods.answering.protocol import Protocol
from vgbench.methods.answering.protocol import names as protocol_names
from vgbench.methods.openai_api.client import Client
from vgbench.methods.vlm.processing import pixel_limits, read_processor, seen_size

FORMATS = {"png": "image/png", "jpeg": "image/jpeg"}


class OpenAIServer(AnsweringMethod):
    """Asks a server for every expression, several at a time, and keeps every answer as it comes.

    Args:
        address: of the server up to ``/v1``.
        model: the server's name for the model.
        protocol: name of a protocol, or a file. A server does not say what it runs: there is no default.
        prompt, style, system, max_new_tokens: in the place of the protocol's.
        key_variable: environment variable that holds the key; null: the server wants none.
        concurrency: questions that are open at a time.
        retries: further tries after an error that may pass.
        timeout: seconds for one try.
        processor: folder (or ``hf://`` name) with the processor of the model, for protocols whose coordinates are
            pixels of the picture as the model sees it: pictures are sent in just that size.
        min_pixels, max_pixels: limits of that size.
        image_format: "png" sends pixels as they are; "jpeg" (quality 95) sends less.
        extra_body: further fields of every request that the server knows, e.g. {top_k: 1}.
        segmenter: folder of a promptable segmenter, for masks.

    Raises:
        UserError: if something is not stated, the extra ``api`` or the key is missing.
    """

    name: ClassVar[str] = "OpenAI API"
    remote = True
    no_training = "method=openai is evaluated only; use vgbench eval"
    file_options: ClassVar[frozenset[str]] = AnsweringMethod.file_options | {"processor"}
    handling_options: ClassVar[frozenset[str]] = frozenset(
        {"address", "key_variable", "concurrency", "retries", "timeout"}
    )
    # a stored configuration must not choose where the key goes, or which variable is sent
    program_options: ClassVar[frozenset[str]] = frozenset({"address", "key_variable"})

    def __init__(
        self,
        address: str | None = None,
        model: str | None = None,
        protocol: str | None = None,
        prompt: str | None = None,
        style: str | None = None,
        system: str | None = None,
        max_new_tokens: int | None = None,
        key_variable: str | None = "OPENAI_API_KEY",
        concurrency: int = 16,
        retries: int = 6,
        timeout: float = 120.0,
        processor: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        image_format: str = "png",
        extra_body: Mapping[str, Any] | None = None,
        segmenter: str | None = None,
    ) -> None:
        address = required(address, "address", "the server, e.g. http://localhost:8000/v1")
        model = required(model, "model", "the name by which the server knows the model")
        choices = f"how the model is asked and read; there are: {', '.join(protocol_names())}, or FILE.yaml"
        changes = {"min_pixels": min_pixels, "max_pixels": max_pixels, "max_new_tokens": max_new_tokens}
        chosen = Protocol.read(required(protocol, "protocol", choices))
        super().__init__(chosen.changed(prompt=prompt, style=style, system=system, **changes), segmenter)
        _check_numbers(concurrency, retries, timeout)
        if image_format not in FORMATS:
            raise UserError(f"method.image_format={image_format}: use one of {', '.join(FORMATS)}")
        if not self.protocol.chat:
            raise UserError(f"protocol {chosen.name} is no chat: a server of chats cannot be asked in this way")
        self.client = Client(address, model, key_variable, retries, float(timeout))
        self.concurrency, self.image_format = concurrency, image_format
        self.extra_body = dict(extra_body or {})
        self.processor: Any = None
        if processor is not None:
            folder = local_path(processor)
            self.processor = read_processor(folder, self.protocol.min_pixels, self.protocol.max_pixels)
        elif self.style.needs_model_size:
            raise UserError(
                f"protocol {chosen.name}: coordinates are pixels of the picture as the model sees it; give the folder "
                "of its processor, so that its size is known: method.processor=FOLDER"
            )
        self.title = model.rstrip("/").rpartition("/")[2]

    @property
    def decoding(self) -> dict[str, Any]:
        return {
            "model": self.client.model,
            "max_new_tokens": self.protocol.max_new_tokens,
            "format": self.image_format,
            "extra": self.extra_body,
            "limits": pixel_limits(self.processor) if self.processor is not None else {},
        }

    def ask(self, questions: Sequence[Question], save: Save) -> None:
        """All of them, :attr:`concurrency` at a time. After a failure nothing new is asked; what comes is kept."""
        with ThreadPoolExecutor(self.concurrency) as pool:
            open_answers = [pool.submit(self._ask, question, save) for question in questions]
            try:
                done, _ = wait(open_answers, return_when=FIRST_EXCEPTION)
                for answer in done:
                    answer.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _ask(self, question: Question, save: Save) -> None:
        picture, size = self._sent(question.picture)
        address = f"data:{FORMATS[self.image_format]};base64,{_encoded(picture, self.image_format)}"
        turns: list[dict[str, Any]] = []
        if self.protocol.system is not None:
            turns.append({"role": "system", "content": self.protocol.system})
        content = [{"type": "image_url", "image_url": {"url": address}}, {"type": "text", "text": question.prompt}]
        turns.append({"role": "user", "content": content})
        started = time.perf_counter()
        reply = self.client.ask(
            turns, temperature=0, max_tokens=self.protocol.max_new_tokens, extra_body=self.extra_body or None
        )
        seconds = time.perf_counter() - started
        counts = (reply.prompt_tokens, reply.answer_tokens)
        save(question, Words(reply.text.strip(), seconds, question.image, *counts, size, reply.remark))

    def _sent(self, picture: Image.Image) -> tuple[Image.Image, tuple[int, int] | None]:
        """The picture as it is sent, and the size in which the model sees it, if that is known.

        It is sent in that size: a server with the same processor leaves it as it is.
        """
        if self.processor is None:
            return picture, None
        size = seen_size(self.processor, picture)
        if size is None or not self.style.needs_model_size:
            return picture, size
        return (picture if size == picture.size else picture.resize(size, Image.Resampling.BICUBIC)), size

    def load_official(self, state: Mapping[str, Tensor]) -> LoadReport:
        raise UserError("method=openai has no weights: a server predicts; leave checkpoint= out")

    def notes(self) -> list[str]:
        notes = super().notes()
        notes.append(f"asked of the server {self.client.address} as model {self.client.model!r}, temperature 0")
        if self.processor is not None and self.style.needs_model_size:
            limits = ", ".join(f"{key}={value}" for key, value in pixel_limits(self.processor).items())
            notes.append(f"pictures were sent in the size that the model's processor gives them ({limits})")
        usage = self.usage()
        if usage is not None and usage.answers:
            counts = "" if usage.answer_tokens is None else (
                f", {usage.prompt_tokens or 0:,} tokens of questions, {usage.answer_tokens:,} of answers"
            )  # fmt: skip
            notes.append(f"{usage.answers} answers{counts}, {usage.seconds / usage.answers:.2f} s each")
        return notes


def _check_numbers(concurrency: Any, retries: Any, timeout: Any) -> None:
    """
    Raises:
        UserError: naming the option that is no number of its kind.
    """
    for key, value, least in (("concurrency", concurrency, 1), ("retries", retries, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"method.{key}={value}: give a whole number of at least {least}")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
        raise UserError(f"method.timeout={timeout}: give seconds, more than 0")


def _encoded(picture: Image.Image, image_format: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, image_format, **({"quality": 95} if image_format == "jpeg" else {}))
    return base64.b64encode(buffer.getvalue()).decode("ascii")
