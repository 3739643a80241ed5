"""Models behind a server: what is asked and read, errors that pass and errors that do not, a kill in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.methods.openai_api.server import FakeServer, Question, completion
from tests.methods.vlm.models import MODELS
from tests.methods.vlm.pictures import batch_of, boxes, pictures
from vgbench.cli import main
from vgbench.core.errors import UserError
from vgbench.leaderboard.columns import price_per_1000
from vgbench.methods.openai_api import OpenAIServer
from vgbench.records import store

pytest.importorskip("openai")
SECRET = "sk-very-secret-0123456789"


@pytest.fixture(scope="module")
def scenes(few_scenes: Callable[[str], list[str]]) -> list[str]:
    """Four scenes to evaluate, rendered once."""
    return few_scenes("train:2,val:4")


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def method_for(server: FakeServer, **options: Any) -> OpenAIServer:
    given = {"model": "org/InternVL3-8B", "protocol": "internvl", "retries": 2, "concurrency": 4, **options}
    return OpenAIServer(server.address, **given).eval()


def command(server: FakeServer, run: Path, scenes: list[str], *more: str) -> list[str]:
    return [
        *("eval", "method=openai", f"method.address={server.address}", "method.model=org/InternVL3-8B"),
        *("method.protocol=internvl", "method.retries=2", *scenes, "eval.splits=[val]", "eval.bootstrap=10"),
        *("eval.examples=0", "trainer=cpu", "workers=0", f"run_dir={run}", *more),
    ]


def test_questions_and_answers() -> None:
    """By hand: thousandths of 200 x 100; the picture arrives as it is, the system prompt and greedy decoding too."""
    with FakeServer() as server:
        method = method_for(server, system="You see.", extra_body={"top_k": 1})
        images = pictures((200, 100), (60, 90))
        first, second = method.predict(batch_of(method, images, ["a cup", "a dog"]))["main"]
    assert boxes(first) == [[0, 0, 100, 50]] and boxes(second) == [[0, 0, 30, 45]]
    assert first.answer == "<box>[[0, 0, 500, 500]]</box>"
    assert sorted(question.size for question in server.questions) == [(60, 90), (200, 100)]
    asked = next(question for question in server.questions if question.size == (200, 100))
    assert asked.text == method.protocol.prompt("one", "a cup")
    assert asked.body["temperature"] == 0 and asked.body["max_tokens"] == 100 and asked.body["top_k"] == 1
    assert asked.body["model"] == "org/InternVL3-8B" and asked.body["messages"][0]["content"] == "You see."
    assert method.title == "InternVL3-8B"


def test_no_more_questions_are_open_than_allowed() -> None:
    with FakeServer(delay=0.05) as server:
        method = method_for(server, concurrency=3)
        images = pictures(*[(40 + number, 40) for number in range(12)])
        method.predict(batch_of(method, images, ["a cup"] * 12))
    assert len(server.questions) == 12 and server.most_open == 3


def test_errors_that_pass_are_tried_again() -> None:
    """Each question meets one: rate limit, a server that is overloaded, half a body."""
    faults = {0: (429, {"error": {"message": "slow down"}}), 2: (503, b"busy"), 4: (200, b'{"choices": [{"mess')}

    def react(question: Question, number: int) -> tuple[int, Any]:
        return faults.get(number) or (200, completion("<box>[[0, 0, 500, 500]]</box>"))

    with FakeServer(react) as server:
        method = method_for(server, concurrency=1)
        made = method.predict(batch_of(method, pictures((20, 20), (30, 30), (40, 40)), ["a", "b", "c"]))["main"]
    assert [len(boxes(prediction)) for prediction in made] == [1, 1, 1]
    assert len(server.questions) == 3 + len(faults)


@pytest.mark.parametrize(
    ("content", "remark"),
    [
        (completion(None), ""),
        (completion(None, "content_filter"), "content_filter"),
        (completion(None, refusal="I will not."), "refusal"),
        (completion("<box>[[0, 0,", "length"), "length"),
        ({"choices": []}, "malformed"),
        ({"error": "what?"}, "malformed"),
        ([1, 2], "malformed"),
        (b"<html>proxy</html>", "malformed"),
        (completion(["not", "text"]), "malformed"),  # type: ignore[arg-type]
    ],
)
def test_answers_of_another_form_are_no_boxes_and_are_counted(content: Any, remark: str, tmp_path: Path) -> None:
    with FakeServer(lambda question, number: (200, content)) as server:
        method = method_for(server, retries=0)
        method.prepare(tmp_path, {"rec"})
        (prediction,) = method.predict(batch_of(method, pictures((20, 20)), ["a cup"]))["main"]
    assert boxes(prediction) == []
    assert prediction.answer is not None  # it was asked, and said this
    assert not remark or f"1 of 1 answers ended with '{remark}'" in method.notes()


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "the server refuses a request without a key"),
        (404, r"nothing there for model 'org/InternVL3-8B' \(status 404"),
        (400, "status 400: .*picture too large"),
        (429, r"too many requests, 1 tries .* go on with resume=true"),
        (500, "status 500"),
    ],
)
def test_errors_that_stay_are_one_line(status: int, message: str) -> None:
    with FakeServer(lambda question, number: (status, {"error": {"message": "picture too large"}})) as server:
        method = method_for(server, retries=0)
        with pytest.raises(UserError, match=message) as caught:
            method.predict(batch_of(method, pictures((20, 20)), ["a cup"]))
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_or_does_not_answer() -> None:
    with FakeServer() as server:
        gone = server.address
    method = OpenAIServer(gone, "m", "internvl", retries=0).eval()
    with pytest.raises(UserError, match=r"method\.address=http://127\.0\.0\.1:\d+/v1: no server answers there"):
        method.predict(batch_of(method, pictures((20, 20)), ["a cup"]))
    with FakeServer(delay=1.0) as server:
        method = method_for(server, retries=0, timeout=0.2)
        with pytest.raises(UserError, match=r"no answer within method\.timeout= seconds in 1 tries"):
            method.predict(batch_of(method, pictures((20, 20)), ["a cup"]))


def test_the_key_goes_to_the_server_and_nowhere_else(
    scenes: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The server repeats it in its answers, and in an error at last."""
    monkeypatch.setenv("MY_KEY", SECRET)

    def react(question: Question, number: int) -> tuple[int, Any]:
        header = question.headers["authorization"]
        if number == 4:
            return 400, {"error": {"message": f"bad request with {header}"}}
        return 200, completion(f"{header} <box>[[0, 0, 500, 500]]</box>")

    with FakeServer(react) as server:
        line = command(server, tmp_path / "run", scenes, "method.key_variable=MY_KEY")
        assert main([*line, "method.concurrency=1"]) == 2
        assert main([*line, "resume=true"]) == 0
    assert server.questions[0].headers["authorization"] == f"Bearer {SECRET}"
    output = capfd.readouterr()
    assert "status 400" in output.err and "***" in output.err
    assert SECRET not in output.out + output.err
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file
    assert "***" in (tmp_path / "run/answers/0.jsonl").read_text()


def test_the_record_says_what_it_cost(scenes: list[str], tmp_path: Path) -> None:
    with FakeServer() as server:
        assert main(command(server, tmp_path / "run", scenes)) == 0
        asked = len(server.questions)
    record = store.read(tmp_path / "run")
    assert (record.method, record.label, record.variant) == ("openai", "InternVL3-8B", "internvl")
    assert record.checkpoint is None and record.cost.parameters is None and record.cost.flops is None
    assert (record.cost.prompt_tokens, record.cost.answer_tokens) == (100, 7)
    assert record.cost.answer_s is not None and record.cost.answer_s > 0
    notes = "\n".join(record.notes)
    assert f"{100 * asked:,} tokens of questions, {7 * asked:,} of answers" in notes
    assert f"asked of the server {server.address} as model 'org/InternVL3-8B', temperature 0" in notes


def test_the_price_that_was_given_becomes_a_cost(
    scenes: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """By hand: 100 tokens at 2 $ and 7 at 10 $ per million are 0.00027 $, for 1,000 expressions 0.27 $."""
    with FakeServer() as server:
        line = command(server, tmp_path / "run", scenes)
        assert main([*line, "eval.price=3"]) == main([*line, "eval.price={input:3}"]) == 2
        assert main([*line, "eval.price={input:-1,output:2}"]) == 2
        assert capfd.readouterr().err.count("give US dollars per million tokens: eval.price={input:1,output:4}") == 3
        assert not server.questions and main(line) == 0
        plain = store.read(tmp_path / "run")
        asked = len(server.questions)
        (tmp_path / "run" / "record.json").unlink()
        assert main([*line, "eval.price={input:2,output:10}", "resume=true"]) == 0
        assert len(server.questions) == asked  # another price asks nothing again
    record = store.read(tmp_path / "run")
    assert (record.cost.prompt_price, record.cost.answer_price) == (2.0, 10.0)
    assert price_per_1000(record) == pytest.approx(0.27) and price_per_1000(plain) is None
    assert record.config_hash == plain.config_hash
    assert "price of tokens: 2 $ per million of questions, 10 $ of answers, as given" in record.notes


def test_a_killed_evaluation_loses_no_answer(scenes: list[str], tmp_path: Path) -> None:
    """SIGKILL after some answers: they are on disk, the evaluation goes on, and no question is asked twice but those
    that were open."""
    with FakeServer(delay=0.2) as server:
        line = command(server, tmp_path / "run", scenes, "method.concurrency=2")
        process = subprocess.Popen(
            [sys.executable, "-m", "vgbench.cli", *line],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        deadline = time.monotonic() + 240
        while len(server.questions) < 6 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it was killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = (tmp_path / "run/answers/0.jsonl").read_bytes().split(b"\n")[:-1]
        assert all(json.loads(entry)["text"] for entry in kept)
        first = len(server.questions)
        assert first - 4 <= len(kept) <= first  # two were open, two perhaps on their way
        server.delay = 0.0
        assert main([*line, "resume=true"]) == 0
        total = len({str(question.body["messages"]) for question in server.questions})
        assert len(server.questions) == first + total - len(kept)
    record = store.read(tmp_path / "run")
    assert record.results[0].expressions >= total and record.cost.inference_samples_per_s is None


def test_an_error_in_the_middle_keeps_what_came(scenes: list[str], tmp_path: Path) -> None:
    broken = {"now": True}

    def react(question: Question, number: int) -> tuple[int, Any]:
        if broken["now"] and number >= 5:
            return 400, {"error": {"message": "out of credit"}}
        return 200, completion("<box>[[0, 0, 500, 500]]</box>")

    with FakeServer(react) as server:
        line = command(server, tmp_path / "run", scenes, "method.concurrency=1")
        assert main(line) == 2
        broken["now"] = False
        before = len(server.questions)
        assert main([*line[:-1], "resume=true", "method.concurrency=4"]) == 0
        total = len({str(question.body["messages"]) for question in server.questions})
        assert len(server.questions) - before == total - 5


def test_pictures_are_sent_in_the_size_that_the_coordinates_are_in(tmp_path: Path) -> None:
    """By hand: Qwen's processor makes 112 x 56 of 100 x 50."""
    MODELS["qwen2.5-vl"](tmp_path)
    answer = completion('[{"bbox_2d": [28, 14, 84, 42]}]')
    with FakeServer(lambda question, number: (200, answer)) as server:
        with pytest.raises(UserError, match=r"give the folder of its processor, .*method\.processor=FOLDER"):
            method_for(server, protocol="qwen2.5-vl")
        method = method_for(server, protocol="qwen2.5-vl", processor=str(tmp_path))
        (prediction,) = method.predict(batch_of(method, pictures((100, 50)), ["a cup"]))["main"]
    assert server.questions[0].size == (112, 56)
    assert boxes(prediction) == [[25, 12.5, 75, 37.5]]
    assert any("pictures were sent in the size" in note for note in method.notes())


HERE = {"address": "http://localhost:1/v1", "model": "m", "protocol": "internvl"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"method\.address= is missing"),
        ({"address": "http://localhost:1/v1"}, r"method\.model= is missing"),
        ({"address": "http://localhost:1/v1", "model": "m"}, r"method\.protocol= is missing: how the model is asked"),
        ({**HERE, "address": "localhost:1"}, "not an address; write http://HOST:PORT/v1"),
        ({**HERE, "address": f"http://me:{SECRET}@host/v1"}, "no user, password or key"),
        ({**HERE, "address": f"http://host/v1?key={SECRET}"}, "no user, password or key"),
        ({**HERE, "address": "https://host/v1"}, "OPENAI_API_KEY is not set: put"),
        ({**HERE, "protocol": "paligemma"}, "is no chat"),
        ({**HERE, "concurrency": 0}, r"method\.concurrency=0: give a whole number of at least 1"),
        ({**HERE, "timeout": 0}, r"method\.timeout=0: give seconds"),
        ({**HERE, "image_format": "bmp"}, r"method\.image_format=bmp: use one of png, jpeg"),
    ],
)
def test_what_is_not_stated_is_asked_for(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        OpenAIServer(**options)
    assert SECRET not in str(caught.value)


def test_a_server_without_keys_and_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert OpenAIServer("https://host/v1", "m", "internvl", key_variable=None).remote
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r'method=openai needs the package "openai" .*pip install "vgbench\[api\]"'):
        OpenAIServer(**HERE)  # type: ignore[arg-type]


def test_a_stored_configuration_chooses_no_server() -> None:
    """A file from somebody else must not say where the key is sent."""
    from vgbench.config.stored import buildable_method

    node = {"_target_": "vgbench.methods.openai_api.OpenAIServer", "address": "http://evil/v1", "key_variable": "AWS"}
    assert buildable_method({**node, "model": "m"}, "file") == {"_target_": node["_target_"], "model": "m"}


def test_it_has_no_weights(scenes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeServer() as server:
        line = command(server, tmp_path / "run", scenes)
        assert main([*line, "checkpoint=model.pth"]) == 2
        assert "this method has no weights, a server predicts; leave it out" in capsys.readouterr().err
        assert main(["run", *line[1:]]) == 2
        assert "method=openai is evaluated only; use vgbench eval" in capsys.readouterr().err
        assert not server.questions
