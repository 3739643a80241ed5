"""Protocols: how a family of language models is asked for boxes, and how its words are read.

A protocol is a file of ``configs/protocol/``. It has a name because the name belongs to the number: the same model
gives very different accuracies under different prompts and readings.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vgbench.config.compose import options
from vgbench.config.plugins import config_folders
from vgbench.core.errors import UserError

#: What a prompt asks for -> the tasks that its answers are scored in.
QUESTIONS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "one": frozenset({"rec", "pointing"}),  # the box of what an expression means
        "any": frozenset({"grec"}),  # boxes of all that it means, or that it means nothing
        "point": frozenset({"pointing"}),
        "caption": frozenset({"rec", "phrase", "pointing"}),  # boxes of the phrases of a caption
    }
)
PLACE = "{expression}"


@dataclass(frozen=True)
class Protocol:
    """How a model is asked and read.

    Attributes:
        name: what is typed, and what stands in the row; ``+`` and what was changed behind it where it was changed.
        style: how the words are read, a style of ``vgbench score``.
        prompts: kind of question (:data:`QUESTIONS`) -> text with ``{expression}``.
        about: one line for ``vgbench list``.
        sources: where prompts and coordinates are documented.
        models: the model types of transformers (``model_type`` of config.json) that it is for.
        system: system prompt, None: the model's own.
        chat: the prompt is a user's turn in the model's chat template; False: the prompt is the whole input.
        special_tokens: markup that the style reads is made of special tokens, which are kept in the words.
        batched: several questions may be asked at once; False where answers depend on how far a batch is padded.
        max_new_tokens: of an answer; a longer one is cut.
        min_pixels, max_pixels: limits of the picture as the model gets it; None: those of the model's processor.
    """

    name: str
    style: str
    prompts: Mapping[str, str]
    about: str = ""
    sources: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    system: str | None = None
    chat: bool = True
    special_tokens: bool = False
    batched: bool = True
    max_new_tokens: int = 256
    min_pixels: int | None = None
    max_pixels: int | None = None

    @classmethod
    def read(cls, name: str) -> Protocol:
        """The protocol of a name, or of a file of one's own (``.yaml``).

        Raises:
            UserError: if there is none, or the file is none; the message lists the names.
        """
        import yaml

        path = _file(name)
        try:
            node = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise UserError(f"{path}: not a readable protocol ({' '.join(str(error).split())[:200]})") from None
        return cls._checked(node, path)

    @classmethod
    def _checked(cls, node: Any, path: Path) -> Protocol:
        names = {field.name for field in fields(cls)} - {"name"}
        if not isinstance(node, dict) or not node.get("style") or not isinstance(node.get("prompts"), dict):
            raise UserError(f"{path}: a protocol needs style: NAME and prompts: {{one: ...}}")
        for key in node:
            if key not in names:
                raise UserError(f"{path}: {key}: no such key; there are: {', '.join(sorted(names))}")
        for question, prompt in node["prompts"].items():
            if question not in QUESTIONS:
                raise UserError(f"{path}: prompts.{question}: not known; use one of {', '.join(QUESTIONS)}")
            _check_prompt(prompt, f"{path}: prompts.{question}")
        for key, kind in _KINDS.items():
            if key in node and (not isinstance(node[key], kind) or (isinstance(node[key], bool) and kind is not bool)):
                raise UserError(f"{path}: {key}: {str(node[key])[:60]!r} is not what is expected there")
        lists = {key: tuple(map(str, node.get(key) or ())) for key in ("sources", "models")}
        return cls(name=path.stem, **{**node, **lists})

    def changed(self, **changes: Any) -> Protocol:
        """With what is not None of ``changes`` in the place of its own, which then stands behind its name.

        ``prompt``: text of every question that the protocol has.

        Raises:
            UserError: for a prompt without ``{expression}``, or a number that is too small.
        """
        given = {key: value for key, value in changes.items() if value is not None}
        marks = []
        prompt = given.pop("prompt", None)
        prompts = dict(self.prompts)
        if prompt is not None:
            _check_prompt(prompt, "method.prompt")
            prompts = dict.fromkeys(prompts, prompt)
            marks.append("prompt")
        for key, value in given.items():
            if isinstance(value, int) and not isinstance(value, bool) and value < 1:
                raise UserError(f"method.{key}={value}: give a whole number of at least 1")
            if value != getattr(self, key):
                marks.append(f"{key}={value}")
        name = "+".join([self.name, *marks])
        return replace(self, name=name, prompts=prompts, **given)

    @property
    def tasks(self) -> frozenset[str]:
        """What its answers can be scored in."""
        return frozenset().union(*(QUESTIONS[question] for question in self.prompts))

    def question(self, tasks: Collection[str]) -> str:
        """The kind of question that suits the tasks to be scored; the first one of its own where several do."""
        return max(self.prompts, key=lambda question: len(QUESTIONS[question].intersection(tasks)))

    def prompt(self, question: str, expression: str) -> str:
        """The text for an expression."""
        return self.prompts[question].replace(PLACE, expression.strip())

    def notes(self, question: str) -> list[str]:
        """What a reader of the record has to know."""
        source = f" (source: {', '.join(self.sources)})" if self.sources else ""
        system = "" if self.system is None else f", system prompt {self.system!r}"
        return [
            f"protocol {self.name}: prompt {self.prompts[question]!r}{system}, answers read as style {self.style}, "
            f"greedy decoding, at most {self.max_new_tokens} new tokens{source}"
        ]


def protocol_for(model_type: str) -> str | None:
    """The name of the first protocol that is for a model type of transformers, or None."""
    return next((name for name in names() if model_type in Protocol.read(name).models), None)


def names() -> list[str]:
    """Names of all protocols, those of plug-ins included."""
    return options("protocol")


_KINDS: dict[str, Any] = {  # of values in a protocol's file
    **dict.fromkeys(("system",), str | None),
    **dict.fromkeys(("chat", "special_tokens", "batched"), bool),
    **dict.fromkeys(("max_new_tokens",), int),
    **dict.fromkeys(("min_pixels", "max_pixels"), int | None),
    **dict.fromkeys(("sources", "models"), list | None),
}


def _file(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserError(f"{path}: no such file; method.protocol= takes a name or a file of one's own")
        return path
    for folder in (Path(str(files("vgbench.configs"))), *config_folders()):
        path = folder / "protocol" / f"{name}.yaml"
        if path.is_file():
            return path
    raise UserError(f"method.protocol={name}: there is no such protocol; there are: {', '.join(names())}")


def _check_prompt(prompt: Any, where: str) -> None:
    if not isinstance(prompt, str) or PLACE not in prompt:
        raise UserError(f"{where}: a prompt is a text with {PLACE} in it")
