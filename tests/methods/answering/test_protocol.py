"""Protocols: the files that come with the suite, files of one's own, and names that say what was changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from vgbench.core.errors import UserError
from vgbench.methods.answering.protocol import Protocol, names, protocol_for
from vgbench.predictions.styles import style


@pytest.mark.parametrize("name", names())
def test_every_protocol_states_style_sources_and_length(name: str) -> None:
    protocol = Protocol.read(name)
    assert style(protocol.style).coordinates.words()
    assert protocol.sources and protocol.about and protocol.max_new_tokens > 0
    for question in protocol.prompts:
        assert "a red cup" in protocol.prompt(question, " a red cup ")


def test_a_model_type_has_one_protocol() -> None:
    types = [kind for name in names() for kind in Protocol.read(name).models]
    assert len(types) == len(set(types))
    assert protocol_for("qwen2_5_vl") == "qwen2.5-vl" and protocol_for("bert") is None


def test_braces_of_an_expression_stay_as_they_are() -> None:
    protocol = Protocol("p", "qwen3-vl", {"one": 'Find {expression} as {"bbox_2d": []}'})
    assert protocol.prompt("one", "the {expression} sign") == 'Find the {expression} sign as {"bbox_2d": []}'


def test_what_is_changed_stands_in_the_name() -> None:
    protocol = Protocol.read("qwen2.5-vl")
    assert protocol.changed(prompt=None, max_pixels=None).name == "qwen2.5-vl"
    changed = protocol.changed(prompt="Where is {expression}?", max_pixels=1003520)
    assert changed.name == "qwen2.5-vl+prompt+max_pixels=1003520"
    assert set(changed.prompts.values()) == {"Where is {expression}?"}
    with pytest.raises(UserError, match=r"method\.prompt: a prompt is a text with \{expression\}"):
        protocol.changed(prompt="Where is it?")
    with pytest.raises(UserError, match=r"method\.max_new_tokens=0: give a whole number of at least 1"):
        protocol.changed(max_new_tokens=0)


def test_the_question_suits_the_tasks() -> None:
    protocol = Protocol.read("qwen3-vl")
    assert protocol.question({"rec", "pointing"}) == "one"
    assert protocol.question({"grec"}) == "any"
    assert "empty list" in protocol.prompt("any", "a cup")
    assert Protocol.read("kosmos-2").question({"phrase"}) == "caption"
    assert Protocol.read("molmo2").tasks == {"pointing"}


def test_files_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("style: internvl\nprompts: {one: 'box of {expression}'}\nsystem: You see.\n")
    protocol = Protocol.read(str(file))
    assert (protocol.name, protocol.system) == ("mine", "You see.")
    for text, message in (
        ("style: internvl\nprompts: {one: box}\n", r"prompts\.one: a prompt is a text with"),
        ("style: internvl\nprompts: {two: '{expression}'}\n", r"prompts\.two: not known; use one of one, any"),
        ("style: internvl\nprompt: {one: '{expression}'}\n", "needs style: NAME and prompts"),
        ("style: internvl\nprompts: {one: '{expression}'}\nturbo: 1\n", "turbo: no such key; there are: about"),
        ("style: [\n", "not a readable protocol"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            Protocol.read(str(file))
    with pytest.raises(UserError, match=r"no such protocol; there are: florence-2, glm-4v"):
        Protocol.read("qwen")
    with pytest.raises(UserError, match="no such file"):
        Protocol.read("other.yaml")
