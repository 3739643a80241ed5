"""Vision-language models: tiny random ones through the whole way, and answers that are put into their mouths."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.methods.vlm.models import MODELS
from tests.methods.vlm.pictures import batch_of, boxes, pictures
from vgbench.core.errors import UserError
from vgbench.methods.answering.journal import Words
from vgbench.methods.vlm import VLM

transformers = pytest.importorskip("transformers")
FAMILIES = [name for name in MODELS if name != "sam"]
PROTOCOLS = {"idefics3": "json-1000"}  # the others have one of their own


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            place = tmp_path_factory.mktemp("models") / f"{name}-tiny"
            place.mkdir()
            MODELS[name](place)
            made[name] = place
        return made[name]

    return folder


def loaded(folder: Path, **options: Any) -> VLM:
    method = VLM(str(folder), **options).eval()
    method.load_official(method.read_official(folder / "model.safetensors"))
    return method


def says(method: VLM, monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
    """Generation is replaced by these words."""
    words = [method.processor.tokenizer(answer, add_special_tokens=False).input_ids for answer in answers]
    end, pad = method.processor.tokenizer.eos_token_id, method.processor.tokenizer.pad_token_id
    longest = max(map(len, words)) + 2

    def generate(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        rows = [[*ids, end, *[pad] * (longest - len(ids) - 1)] for ids in words]
        return torch.cat([input_ids, torch.tensor(rows)], 1)

    monkeypatch.setattr(method.generator, "generate", generate)


@pytest.mark.parametrize("name", FAMILIES)
def test_answers_are_those_of_transformers_alone_and_in_a_batch(name: str, model_folder: Any) -> None:
    """The reference: the processor, greedy generation and decoding of transformers, one picture at a time."""
    folder = model_folder(name)
    method = loaded(folder, protocol=PROTOCOLS.get(name), max_new_tokens=6)
    images, texts = pictures((90, 60), (70, 80)), ["the red circle on the left", "a dog"]
    with torch.no_grad():
        together = method.predict(batch_of(method, images, texts))["main"]
    processor = transformers.AutoProcessor.from_pretrained(folder)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    protocol = method.protocol
    for image, text, ours in zip(images, texts, together, strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        if name == "llava":  # padded to a square with the processor's mean colour, as its authors do
            side = max(picture.size)
            mean = tuple(round(255 * value) for value in processor.image_processor.image_mean)
            square = Image.new("RGB", (side, side), mean)
            square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
            picture = square
        prompt = protocol.prompt("one", text)
        if protocol.chat:
            turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt}]}
            prompt = processor.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
        inputs = processor(text=[prompt], images=[[picture]], return_tensors="pt")
        if name != "paligemma":  # which tells question from answer by them
            inputs.pop("token_type_ids", None)
        inputs.pop("labels", None)
        output = model.generate(**inputs, do_sample=False, max_new_tokens=6)[0, inputs["input_ids"].shape[1] :]
        ends = {processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id}
        ids = [number for number in output.tolist() if number not in ends]
        expected = processor.tokenizer.decode(ids, skip_special_tokens=not protocol.special_tokens).strip()
        assert ours.answer == expected
        with torch.no_grad():
            (alone,) = method.predict(batch_of(method, [image], [text]))["main"]
        assert alone.answer == expected


def test_pixels_of_the_resized_picture_are_the_processors(model_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: Qwen's processor makes 112 x 56 of 100 x 50 (multiples of 28 nearest to it), and 56 x 28 of it where
    3,136 pixels are the limit (the largest multiples within)."""
    folder = model_folder("qwen2.5-vl")
    answer = '```json\n[{"bbox_2d": [28, 14, 84, 42], "label": "cup"}]\n```'
    for limit, expected in ((None, [25, 12.5, 75, 37.5]), (3136, [50, 25, 150, 75])):
        method = loaded(folder, max_pixels=limit)
        says(method, monkeypatch, answer)
        (prediction,) = method.predict(batch_of(method, pictures((100, 50)), ["cup"]))["main"]
        assert boxes(prediction) == [expected]
        assert prediction.answer == answer and np.asarray(prediction.scores).tolist() == [1.0]
        assert prediction.point == (int((expected[0] + expected[2]) / 2), int((expected[1] + expected[3]) / 2))
    assert method.variant == "qwen2.5-vl+max_pixels=3136"
    assert any("max_pixels=3136" in note and "min_pixels=3136" in note for note in method.notes())


def test_location_tokens_are_read_y_first(model_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: bins of 1024, y before x, of a picture of 64 x 32."""
    method = loaded(model_folder("paligemma"))
    says(
        method,
        monkeypatch,
        "<loc0256><loc0128><loc0512><loc0768> cup ; <loc0000><loc0000><loc1023><loc1023> cup",
        "cup",
    )
    first, second = method.predict(batch_of(method, pictures((64, 32), (64, 32)), ["cup", "cup"]))["main"]
    assert boxes(first)[0] == [8, 8, 48, 16] and len(boxes(first)) == 2
    assert boxes(second) == [] and second.no_target is None


def test_shares_of_a_thousand_and_rejections(model_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: thousandths of 200 x 100. What denies the target has no box and says so."""
    method = loaded(model_folder("internvl"))
    method.prepare_questions({"grec"})
    says(method, monkeypatch, "<ref>cup</ref><box>[[100, 200, 300, 400], [0, 0, 500, 500]]</box>", "none")
    batch = batch_of(method, pictures((200, 100), (200, 100)), ["cups", "a dog"])
    first, second = method.predict(batch)["main"]
    assert boxes(first) == [[20, 20, 60, 40], [0, 0, 100, 50]] and first.no_target is False
    assert boxes(second) == [] and second.no_target is True
    assert any("there is none, answer: none" in note for note in method.notes())


def test_a_square_picture_has_its_frame_taken_off(model_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: 100 x 50 padded to 100 x 100 starts at y = 25."""
    method = loaded(model_folder("llava"))
    says(method, monkeypatch, "[0.2, 0.5, 0.4, 0.75]")
    (prediction,) = method.predict(batch_of(method, pictures((100, 50)), ["cup"]))["main"]
    assert boxes(prediction) == [[20, 25, 40, 50]]


def test_whole_captions_are_asked_for_once(model_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: bin centres of thousandths of 100 x 100; each phrase gets what stands behind it."""
    file = tmp_path / "captions.jsonl"
    file.write_text("".join(json.dumps({"key": key, "caption": "A man in a hat."}) + "\n" for key in "ab"))
    with pytest.raises(UserError, match="protocol internvl asks for no whole captions"):
        VLM(str(model_folder("internvl")), captions=str(file))
    method = loaded(model_folder("kosmos-2"), captions=str(file), protocol="florence-2")
    asked: list[str] = []

    def ask(questions: Any, save: Any) -> None:
        asked.extend(question.prompt for question in questions)
        text = "A man<loc_100><loc_200><loc_300><loc_400> in a hat<loc_0><loc_0><loc_9><loc_9>"
        for question in questions:
            save(question, Words(text, 1.0, question.image))

    monkeypatch.setattr(method, "ask", ask)
    image = pictures((100, 100))[0]
    batch = batch_of(method, [image, image], ["a man", "a hat"])
    batch.auxiliary = {"caption": torch.tensor([[0], [0]])}
    method.prepare_questions({"phrase"})
    first, second = method.predict(batch)["main"]
    assert asked == ["<CAPTION_TO_PHRASE_GROUNDING>A man in a hat."]
    assert boxes(first) == [[10.05, 20.05, 30.05, 40.05]] and boxes(second) == [[0.05, 0.05, 0.95, 0.95]]


def test_masks_come_from_a_segmenter_in_a_row_of_their_own(model_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference: transformers' SAM with the box as its prompt."""
    from pycocotools import mask as coco

    method = loaded(model_folder("internvl"), segmenter=str(model_folder("sam")))
    assert method.outputs == ("main", "segmenter")
    assert method.output_labels == {"segmenter": "internvl-tiny + sam-tiny"}
    assert method.output_tasks["segmenter"] == {"res", "gres"} and "res" in method.tasks
    says(method, monkeypatch, "<box>[[100, 200, 300, 400]]</box>", "I cannot see it.")
    images = pictures((200, 100), (60, 90))
    made = method.predict(batch_of(method, images, ["cup", "cup"]))
    assert made["main"][0].mask is None
    processor = transformers.AutoProcessor.from_pretrained(model_folder("sam"))
    model = transformers.SamModel.from_pretrained(model_folder("sam")).eval()
    picture = Image.fromarray(images[0].permute(1, 2, 0).numpy())
    inputs = processor(images=picture, input_boxes=[[[20.0, 20.0, 60.0, 40.0]]], return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs, multimask_output=False)
    (masks,) = processor.post_process_masks(output.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"])
    mask = made["segmenter"][0].mask
    assert mask is not None and mask["size"] == [100, 200]
    assert np.array_equal(coco.decode(mask).astype(bool), masks[0, 0].numpy())
    nothing = made["segmenter"][1].mask
    assert nothing is not None and nothing["size"] == [90, 60] and coco.area(nothing) == 0


def test_a_tiny_model_is_evaluated_on_the_command_line(
    model_folder: Any, few_scenes: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And goes on where it was: the second evaluation in the folder asks nothing."""
    from vgbench.cli import main
    from vgbench.records import store

    folder = model_folder("qwen2.5-vl")
    command = [
        *("eval", "method=vlm", f"method.model={folder}", "method.max_new_tokens=4", *few_scenes("train:2,val:3")),
        *("eval.splits=[val]", "eval.bootstrap=10", "eval.examples=0", "trainer=cpu", "workers=0"),
        *(f"run_dir={tmp_path}/run",),
    ]
    assert main(command) == 0
    record = store.read(tmp_path / "run")
    assert (record.method, record.label) == ("vlm", "qwen2.5-vl-tiny")
    assert record.variant == "qwen2.5-vl+max_new_tokens=4"
    assert {result.task for result in record.results} == {"rec", "pointing"}
    assert record.results[0].leaked_images is None
    assert record.checkpoint is not None and record.checkpoint.origin == "official"
    assert record.cost.flops is None and record.cost.answer_tokens is not None and record.cost.answer_s is not None
    notes = "\n".join(record.notes)
    assert "protocol qwen2.5-vl+max_new_tokens=4: prompt 'Locate {expression} in this image" in notes
    assert "val: answers read as style qwen2.5-vl: xyxy, pixels of the image as the model saw it" in notes
    assert "answers (100.00 %) cannot be read (" in notes
    assert "points are the centres of the first boxes" in notes and "max_pixels=50176 (the processor's own)" in notes
    stored = (tmp_path / "run/answers/0.jsonl").read_bytes()
    assert main([*command, "resume=true"]) == 0
    assert (tmp_path / "run/answers/0.jsonl").read_bytes() == stored
    again = store.read(tmp_path / "run")
    assert again.results[0].metrics == record.results[0].metrics
    assert again.cost.inference_samples_per_s is None
    capsys.readouterr()


def test_weights_in_several_files_are_found(model_folder: Any, tmp_path: Path) -> None:
    from vgbench.training import weights

    folder = tmp_path / "sharded"
    model = transformers.AutoModelForImageTextToText.from_pretrained(model_folder("internvl"))
    model.save_pretrained(folder, max_shard_size="50KB")
    path = weights.resolve(str(folder))
    assert path.name == "model.safetensors.index.json"
    before = weights.fingerprint(path)
    shard = sorted(folder.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x01")
    assert weights.fingerprint(path) != before
    shard.unlink()
    with pytest.raises(UserError, match="not all files that it names can be read"):
        weights.fingerprint(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "error: method.model= is missing: a folder with a vision-language model of transformers"),
        (["method.model=nowhere"], "error: nowhere: no config.json; method.model= must be a folder"),
    ],
)
def test_the_command_line_says_what_is_missing(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from vgbench.cli import main

    assert main(["eval", "method=vlm", *options, "dataset=refshapes", "trainer=cpu"]) == 2
    assert message in capsys.readouterr().err


def test_what_cannot_be_asked_is_refused(model_folder: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"method\.model= is missing: a folder"):
        VLM()
    with pytest.raises(UserError, match=r"no config\.json; method\.model= must be a folder"):
        VLM(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="model type 'bert' is no image-text-to-text model of transformers"):
        VLM(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "internvl_chat", "auto_map": {"AutoModel": "code.Model"}}')
    with pytest.raises(UserError, match="code in a folder is not run"):
        VLM(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "idefics3"}')
    with pytest.raises(UserError, match=r"no protocol is for model type 'idefics3'; state .*: method\.protocol=NAME"):
        VLM(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    with pytest.raises(UserError, match=r"no processor in it \(processor_config\.json or preprocessor_config\.json\)"):
        VLM(str(tmp_path))
    folder = model_folder("internvl")
    with pytest.raises(UserError, match=r"method\.max_pixels=1000: the processor of .* knows no such limit"):
        VLM(str(folder), max_pixels=1000)
    with pytest.raises(UserError, match=r"method\.dtype=half: use one of auto, float32"):
        VLM(str(folder), dtype="half")
    with pytest.raises(UserError, match=r"model type 'internvl' is no promptable segmenter; there are: .*sam"):
        VLM(str(folder), segmenter=str(folder))
    template = folder / "chat_template.jinja"
    text = template.read_text()
    template.unlink()
    try:
        with pytest.raises(UserError, match=r"no chat template, which protocol internvl needs"):
            VLM(str(folder))
    finally:
        template.write_text(text)
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "internvl"
