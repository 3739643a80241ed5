"""Zero-shot models of transformers: tiny random ones, compared with the processors' own post-processing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torchvision import tv_tensors

from vgbench.batches.collate import collate
from vgbench.batches.samples import plain_sample
from vgbench.core.errors import UserError
from vgbench.methods.hf_grounding import HFGrounding

transformers = pytest.importorskip("transformers")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, *(".", "the", "a", "red", "cat", "dog", "circle", "left", "small", "on")]


def dino(folder: Path, kind: str) -> None:
    from transformers import BertTokenizer, GroundingDinoImageProcessor, GroundingDinoProcessor, SwinConfig

    (folder / "vocab.txt").write_text("\n".join(WORDS))
    backbone = SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
            "vocab_size": len(WORDS), "model_type": "bert"}  # fmt: skip
    config_class, model_class = {
        "grounding-dino": (transformers.GroundingDinoConfig, transformers.GroundingDinoForObjectDetection),
        "mm-grounding-dino": (transformers.MMGroundingDinoConfig, transformers.MMGroundingDinoForObjectDetection),
    }[kind]
    config = config_class(
        backbone_config=backbone, text_config=text, num_queries=12, d_model=32, encoder_layers=1, encoder_ffn_dim=16,
        encoder_attention_heads=2, decoder_layers=2, decoder_ffn_dim=16, decoder_attention_heads=2, max_text_len=32,
    )  # fmt: skip
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 96, "longest_edge": 160})
    GroundingDinoProcessor(images, BertTokenizer(str(folder / "vocab.txt"))).save_pretrained(folder)


def owl(folder: Path, kind: str) -> None:

    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["!", *letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}  # as CLIP's: 0 is a word, the end comes last
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
            "vocab_size": len(vocabulary), "max_position_embeddings": 16, "bos_token_id": len(tokens) - 2,
            "eos_token_id": len(tokens) - 1}  # fmt: skip
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
              "image_size": 64, "patch_size": 16}  # fmt: skip
    names = {"owlvit": "OwlViT", "owlv2": "Owlv2"}[kind]
    config = getattr(transformers, f"{names}Config")(text_config=text, vision_config=vision, projection_dim=16)
    torch.manual_seed(0)
    getattr(transformers, f"{names}ForObjectDetection")(config).save_pretrained(folder)
    images = getattr(transformers, f"{names}ImageProcessor")(size={"height": 64, "width": 64})
    getattr(transformers, f"{names}Processor")(images, tokenizer).save_pretrained(folder)


def florence(folder: Path, kind: str = "florence2") -> None:
    """Half precision and a generation_config.json that matters, as the real one. What a random model says holds no box,
    so here the last bias prefers places to all other tokens, and an answer begins with a letter."""
    from tokenizers import pre_tokenizers

    signs = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "<mask>"]
    (folder / "vocab.json").write_text(json.dumps({sign: number for number, sign in enumerate(signs)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.BartTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), extra_special_tokens={"image_token": "<image>"}
    )
    tokenizer.add_tokens([f"<loc_{number}>" for number in range(1000)])
    vision = {"depths": [1, 1], "patch_size": [7, 3], "patch_stride": [4, 4], "patch_padding": [3, 1],
              "patch_prenorm": [False, True], "embed_dim": [8, 16], "num_heads": [1, 2], "num_groups": [1, 2],
              "window_size": 2, "projection_dim": 32, "max_position_embeddings": 8}  # fmt: skip
    text = {"model_type": "bart", "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2, "init_std": 0.5,
            "vocab_size": len(tokenizer), "max_position_embeddings": 256}  # fmt: skip
    config = transformers.Florence2Config(
        vision_config=vision, text_config=text, image_token_id=tokenizer.image_token_id
    )
    torch.manual_seed(0)
    model = transformers.Florence2ForConditionalGeneration(config)
    words = model.model.language_model.shared.weight.data
    words[:, 0] = torch.tensor(
        [float(sign.startswith("<loc_")) for sign in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
    )
    model.model.language_model.decoder.layers[-1].final_layer_norm.bias.data[0] = 50.0
    model.generation_config.no_repeat_ngram_size = 3
    model.generation_config.forced_bos_token_id = tokenizer.convert_tokens_to_ids("k")
    model.half().save_pretrained(folder)
    images = transformers.CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False)
    images.image_seq_length = 17
    rules = {"phrase_grounding": {"banned_grounding_tokens": ["a"]}}
    transformers.Florence2Processor(images, tokenizer, post_processor_config=rules).save_pretrained(folder)


MAKERS = {"grounding-dino": dino, "mm-grounding-dino": dino, "owlvit": owl, "owlv2": owl, "florence2": florence}
DETECTORS = sorted(MAKERS.keys() - {"florence2"})


@pytest.fixture(scope="module", params=sorted(MAKERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("models") / request.param
    place.mkdir()
    MAKERS[request.param](place, request.param)
    return place


def loaded(folder: Path) -> HFGrounding:
    method = HFGrounding(str(folder), max_tokens=128, max_new_tokens=32).eval()
    method.load_official(method.read_official(folder / "model.safetensors"))
    return method


@pytest.mark.parametrize("folder", DETECTORS, indirect=True)
def test_boxes_and_scores_are_those_of_the_processor(folder: Path) -> None:
    """The reference: transformers' own preprocessing, model and post-processing, one image at a time."""
    method = loaded(folder)
    generator = torch.Generator().manual_seed(0)
    pictures = [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in ((60, 90), (80, 70))
    ]
    texts = ["the red circle on the left", "a small dog"] if "dino" in folder.name else ["red cup", "dog"]
    processor = transformers.AutoProcessor.from_pretrained(folder)
    model = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()
    for picture, text in zip(pictures, texts, strict=True):
        batch = collate([method.eval_transform()(plain_sample(picture, text))], method.tokenize)
        assert batch is not None
        with torch.no_grad():
            (ours,) = method.predict(batch)["main"]
            asked = f"{text}." if "dino" in folder.name else [text]
            more = {"padding": "max_length"} if "owl" in folder.name else {}
            inputs = processor(images=picture, text=asked, return_tensors="pt", **more)
            outputs = model(**inputs)
        (theirs,) = processor.post_process_grounded_object_detection(
            outputs, threshold=0.0, target_sizes=[tuple(picture.shape[-2:])]
        )
        best = theirs["scores"].sort(descending=True, stable=True).values[: len(ours.scores)]
        torch.testing.assert_close(ours.scores, best)
        first = theirs["boxes"][theirs["scores"].argmax()]
        torch.testing.assert_close(ours.boxes[0], first, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("folder", ["florence2"], indirect=True)
def test_a_generated_answer_is_that_of_the_processor(folder: Path) -> None:
    """The reference: transformers' processor, generation as on the model card and parsing, one image at a time; ours
    are one at a time and both in a batch, whose texts differ in length."""
    method = loaded(folder)
    generator = torch.Generator().manual_seed(0)
    sizes = ((60, 90), (80, 70))
    pictures = [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]
    texts = ["The red circle, on the left. ", "a small dog"]
    samples = [method.eval_transform()(plain_sample(*pair)) for pair in zip(pictures, texts, strict=True)]
    together = collate(samples, method.tokenize)
    assert together is not None
    with torch.no_grad():
        both = method.predict(together)["main"]
    processor = transformers.AutoProcessor.from_pretrained(folder)
    model = transformers.Florence2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    task = "<CAPTION_TO_PHRASE_GROUNDING>"
    answers = []
    for number, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        inputs = processor(images=picture, text=task + text, return_tensors="pt")
        generated = model.generate(**inputs, num_beams=3, do_sample=False, max_new_tokens=32)
        answers.append(processor.batch_decode(generated, skip_special_tokens=False)[0])
        theirs = processor.post_process_generation(answers[-1], task=task, image_size=sizes[number][::-1])[task]
        assert len(theirs["bboxes"]) == 7
        alone = collate(samples[number : number + 1], method.tokenize)
        assert alone is not None
        ids = inputs["input_ids"][:, processor.num_image_tokens :]
        assert torch.equal(alone.text_ids, ids) and torch.equal(together.text_ids[number, : ids.shape[1]], ids[0])
        with torch.no_grad():
            (single,) = method.predict(alone)["main"]
        for ours in (single, both[number]):
            assert ours.boxes.tolist() == theirs["bboxes"]
            assert ours.scores.tolist() == [1.0] * 7
    assert answers[0] != answers[1]


@pytest.mark.parametrize("folder", ["florence2"], indirect=True)
def test_a_later_phrase_of_an_answer_counts_less(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: bin b of 1000 is b + 0.5 thousandths of the side, whole pixels; "a" is no phrase in this folder."""
    method = loaded(folder)
    answers = [
        "</s><s>dog<loc_100><loc_200><loc_300><loc_400><loc_0><loc_0><loc_999><loc_999>a<loc_1><loc_1><loc_1><loc_1>"
        "on cat<loc_500><loc_500><loc_600><loc_700>left<loc_10><loc_20><loc_30></s>",
        "</s><s>no dog</s>",
    ]
    ids = method.processor.tokenizer(answers, add_special_tokens=False, padding=True, return_tensors="pt").input_ids
    monkeypatch.setattr(method.model, "generate", lambda **given: ids)
    samples = [method.eval_transform()(plain_sample(torch.zeros(3, 100, 200, dtype=torch.uint8), "dog"))] * 2
    batch = collate(samples, method.tokenize)
    assert batch is not None
    first, second = method.predict(batch)["main"]
    assert first.boxes.tolist() == [[20, 20, 60, 40], [0, 0, 199, 99], [100, 50, 120, 70]]
    assert first.scores.tolist() == [1.0, 1.0, 0.5]
    assert second.boxes.shape == (0, 4) and second.scores.shape == (0,)
    method.top = 2
    first, _ = method.predict(batch)["main"]
    assert first.scores.tolist() == [1.0, 1.0] and len(first.boxes) == 2


@pytest.mark.parametrize("folder", ["florence2"], indirect=True)
def test_florence_that_cannot_be_run_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "florence2", "auto_map": {"AutoConfig": "code.Config"}}')
    with pytest.raises(UserError, match="with code of its own, which is not run"):
        HFGrounding(str(tmp_path))
    monkeypatch.setattr("transformers.Florence2ForConditionalGeneration", None)
    with pytest.raises(UserError, match=r"has no Florence-2; install 4\.56 or later"):
        HFGrounding(str(folder))


def test_a_batch_answers_each_image_in_its_own_pixels(folder: Path) -> None:
    method = loaded(folder)
    picture = torch.randint(0, 256, (3, 60, 90), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    samples = [method.eval_transform()(plain_sample(picture, text)) for text in ("the red circle", "dog")]
    single = collate(samples[:1], method.tokenize)
    both = collate(samples, method.tokenize)
    assert single is not None
    assert both is not None
    with torch.no_grad():
        alone, together = method.predict(single)["main"][0], method.predict(both)["main"][0]
    torch.testing.assert_close(alone.scores, together.scores, atol=1e-4, rtol=1e-3)
    assert (alone.scores.diff() <= 0).all()


def test_the_transform_keeps_boxes_on_the_image(folder: Path) -> None:
    method = HFGrounding(str(folder))
    sample = plain_sample(torch.zeros(3, 40, 80, dtype=torch.uint8), "dog")
    sample["boxes"] = tv_tensors.BoundingBoxes([[0.0, 0.0, 80.0, 40.0]], format="XYXY", canvas_size=(40, 80))  # type: ignore[call-overload]
    changed = method.eval_transform()(sample)
    back = changed["geometry"].to_original(changed["boxes"].as_subclass(torch.Tensor).float())
    torch.testing.assert_close(back, torch.tensor([[0.0, 0.0, 80.0, 40.0]]))


def test_a_zero_shot_model_is_evaluated_through_the_runner(tmp_path: Path) -> None:
    from vgbench.config.compose import compose
    from vgbench.records import store
    from vgbench.training import run
    from vgbench.training.run import evaluate

    model = tmp_path / "owlv2-tiny"
    model.mkdir()
    owl(model, "owlv2")
    config = compose(
        [
            *(
                "method=hf_grounding",
                f"method.model={model}",
                "dataset=refshapes",
                f"dataset.cache_dir={tmp_path}/cache",
            ),
            *("dataset.images={train: 5, val: 6, testA: 5, testB: 5}", "eval.splits=[val]", "eval.bootstrap=20"),
            *(f"run_dir={tmp_path}/run", "trainer=cpu", "workers=0", "eval.examples=0"),
        ]
    )
    evaluate(config)
    made = store.read(tmp_path / "run")
    assert (made.method, made.label) == ("hf_grounding", "owlv2-tiny")
    assert made.checkpoint is not None and made.checkpoint.origin == "official"
    assert {result.task for result in made.results} == {"rec"} and made.results[0].leaked_images is None
    with pytest.raises(UserError, match="zero-shot"):
        run.run(config)


def test_what_is_no_such_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"method\.model=FOLDER is missing"):
        HFGrounding()
    with pytest.raises(UserError, match=r"no config\.json"):
        HFGrounding(str(tmp_path))
    transformers.BertConfig().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="model type 'bert'; supported are grounding-dino"):
        HFGrounding(str(tmp_path))
