"""BEiT-3: official numbers, official names and sizes, tokenizer, safe reading of checkpoints."""

from __future__ import annotations

import argparse
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vgbench.checkpoints.names import describe_state
from vgbench.checkpoints.read import read_checkpoint
from vgbench.core.errors import UserError
from vgbench.layers.beit3 import BEiT3, adapt_own_size, load_beit3
from vgbench.layers.depth import branch_scales, drop_path_rates
from vgbench.text.sentencepiece import BEiT3Tokenizer, clean_expression, train_sentencepiece

HERE = Path(__file__).parents[1]
SMALL = {"width": 16, "layers": 2, "heads": 2, "ffn_width": 24, "image_size": 64, "patch_size": 16, "vocab_size": 30}


def official_state(encoder: BEiT3, prefix: str = "beit3.") -> dict[str, torch.Tensor]:
    from vgbench.checkpoints.names import export_mapped
    from vgbench.layers.beit3 import beit3_keys

    state = export_mapped(encoder.state_dict(), beit3_keys(len(encoder.layers), official=prefix))
    return state | {f"{prefix}vision_embed.mask_token": torch.zeros(1, 1, encoder.width)}


@pytest.mark.parametrize("prefix", ["beit3.", "vis_enc.beit3.", ""])
def test_loading_inverts_exporting_under_every_prefix(prefix):
    source, target = BEiT3(**SMALL), BEiT3(**SMALL)
    heads = {"mlm_head.bias": torch.zeros(3)} if prefix else {}  # without a prefix nothing else can be in the file
    report = load_beit3(target, official_state(source, prefix) | heads)
    assert set(report.unused) == {f"{prefix}vision_embed.mask_token", *heads}
    for (name, a), b in zip(source.state_dict().items(), target.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_wrong_state_says_what_it_looks_like():
    encoder = BEiT3(**SMALL)
    with pytest.raises(UserError, match="expected a BEiT-3 pre-training checkpoint, but this looks like a ResNet"):
        load_beit3(encoder, {"layer1.0.conv1.weight": torch.zeros(1), "fc.weight": torch.zeros(1)})
    state = official_state(encoder)
    del state["beit3.encoder.layers.1.ffn.B.fc2.bias"]
    with pytest.raises(UserError, match=r"1 of \d+ keys are missing, the first is 'beit3.encoder.layers.1.ffn.B.fc2"):
        load_beit3(encoder, state)
    with pytest.raises(UserError, match=r"'beit3.text_embed.weight' is \[31, 16\].*where the model has \[30, 16\]"):
        load_beit3(encoder, official_state(BEiT3(**{**SMALL, "vocab_size": 31})))
    with pytest.raises(UserError, match=r"1 keys are unknown, the first is 'beit3.new'"):
        load_beit3(encoder, official_state(encoder) | {"beit3.new": torch.zeros(1)})


def test_image_size_changes_keep_the_class_row_and_constant_tables():
    small, large = BEiT3(**SMALL), BEiT3(**{**SMALL, "image_size": 96})
    with torch.no_grad():
        small.vision_position.weight[3:] = 0.25
    state = adapt_own_size({f"encoder.{name}": value for name, value in small.state_dict().items()}, large)
    table = state["encoder.vision_position.weight"]
    assert table.shape == (6 * 6 + 3, 16)
    assert torch.equal(table[:3], small.vision_position.weight[:3])
    torch.testing.assert_close(table[3:], torch.full((36, 16), 0.25))


def test_padding_never_reaches_real_tokens_and_batches_are_independent():
    encoder = BEiT3(**SMALL).eval()
    image, ids = torch.randn(2, 3, 64, 64), torch.randint(4, 30, (2, 6))
    pad = torch.zeros(2, 6, dtype=torch.bool)
    pad[1, 4:] = True
    out = encoder(image, ids, pad)
    other = ids.clone()
    other[1, 4:] = 7
    again = encoder(image, other, pad)
    torch.testing.assert_close(out.text, again.text)
    alone = encoder(image[1:], ids[1:, :4], pad[1:, :4])
    torch.testing.assert_close(out.image[1:], alone.image, atol=1e-5, rtol=1e-5)
    assert torch.equal(out.text[1, 4], out.text[1, 5])
    with pytest.raises(ValueError, match="built for 64 px"):
        encoder(torch.randn(1, 3, 32, 32))


def test_stochastic_depth_drops_whole_branches_of_samples():
    assert drop_path_rates(0.1, 3) == pytest.approx([0.0, 0.05, 0.1])
    torch.manual_seed(0)
    scales = branch_scales(1 - torch.tensor(drop_path_rates(0.5, 3)), branches=2, batch=1000)
    assert scales.shape == (3, 2, 1000, 1, 1)
    assert [sorted(set(layer.flatten().tolist())) for layer in scales] == [
        [1.0],
        [0.0, pytest.approx(4 / 3)],
        [0.0, 2.0],
    ]
    torch.testing.assert_close(scales.mean((1, 2, 3, 4)), torch.ones(3), atol=0.1, rtol=0)

    encoder = BEiT3(**SMALL)
    image, ids = torch.randn(2, 3, 64, 64), torch.randint(4, 30, (2, 4))
    streams, mask = encoder.embed(image, ids, None)
    before = {name: x.clone() for name, x in streams.items()}
    scales = torch.tensor([0.0, 1.0]).expand(2, 2)[..., None, None]  # both branches of the first sample
    after = encoder.layers[1](streams, mask, scales)
    whole = encoder.layers[1](streams, mask)
    for name in before:
        assert torch.equal(after[name][0], before[name][0])
        assert torch.equal(after[name][1], whole[name][1]) and not torch.equal(after[name][1], before[name][1])


def test_an_encoder_drops_branches_only_while_training():
    encoder = BEiT3(**{**SMALL, "drop_path": 0.5}).train()
    image, ids = torch.randn(2, 3, 64, 64), torch.randint(4, 30, (2, 4))
    torch.manual_seed(0)
    drawn = [encoder(image, ids).cls for _ in range(6)]
    assert any(not torch.equal(drawn[0], other) for other in drawn[1:])
    encoder.eval()
    assert torch.equal(encoder(image, ids).cls, encoder(image, ids).cls)


# text ------------------------------------------------------------------------------------------------------------


def test_cleaning():
    assert clean_expression('Woman\'s (left-most) a;b/c #3: **Dog**?!, "x".') == "womans left most ab c 3 dog x"
    assert clean_expression("a - b ÄÖ") == "a   b äö"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("spm") / "tiny.spm"
    colours, shapes, places = ("red", "blue", "green"), ("circle", "square", "ring"), ("left", "right", "top")
    train_sentencepiece([f"the {c} {s} on the {p}" for c in colours for s in shapes for p in places], path, 60)
    return path


def test_training_a_tokenizer_is_deterministic_and_small(model, tmp_path):
    lines = [f"the {c} circle" for c in ("red", "blue", "green")]
    train_sentencepiece(lines, tmp_path / "a.spm", 40)
    train_sentencepiece(lines, tmp_path / "b.spm", 40)
    assert (tmp_path / "a.spm").read_bytes() == (tmp_path / "b.spm").read_bytes()
    assert model.stat().st_size < 10_000


def test_ids_follow_the_fairseq_scheme(model):
    tokenizer = BEiT3Tokenizer(model, 30)
    ids, pad = tokenizer(["the red circle", "the 漢"])
    processor = tokenizer.processor
    pieces = [processor.piece_to_id(piece) + 1 for piece in processor.encode("the red circle", out_type=str)]
    assert ids[0].tolist() == [0, *pieces, 2, *[1] * (28 - len(pieces))]
    assert 3 in ids[1].tolist()
    assert torch.equal(pad, ids == 1)
    cut, cut_pad = BEiT3Tokenizer(model, 5)(["the red circle"])
    assert cut[0].tolist() == [0, *pieces[:3], 2] and not cut_pad.any()
    assert len(tokenizer) == processor.get_piece_size() + 2
    restored = pickle.loads(pickle.dumps(tokenizer))  # loader processes
    assert torch.equal(restored(["the red circle"])[0], ids[:1])


def test_tokenizer_errors_name_the_option(model, tmp_path):
    with pytest.raises(UserError, match=r"method.tokenizer is not set"):
        BEiT3Tokenizer.from_option(None, 8, 100)
    with pytest.raises(UserError, match=r"missing.spm: No such file.*method.tokenizer"):
        BEiT3Tokenizer.from_option(tmp_path / "missing.spm", 8, 100)
    (tmp_path / "text.spm").write_text("hello")
    with pytest.raises(UserError, match="not a SentencePiece model"):
        BEiT3Tokenizer(tmp_path / "text.spm", 8)
    with pytest.raises(UserError, match=r"the word table has 5 rows; set method.vocab_size"):
        BEiT3Tokenizer.from_option(model, 8, 5)
    with pytest.raises(UserError, match="no token left"):
        BEiT3Tokenizer(model, 8)(["the red", " "])


# checkpoint files ------------------------------------------------------------------------------------------------


def test_wrappers_and_prefixes_come_off(tmp_path):
    weights = {"a.weight": torch.arange(3.0), "b": torch.ones(1)}
    for content in (
        weights,
        {"model": weights},
        {"module": weights, "epoch": 3},
        {"state_dict": {f"module.{name}": value for name, value in weights.items()}, "d_acc": np.float64(0.5)},
        {"state_dict": {"model": weights}, "args": argparse.Namespace(lr=0.1), "lr": [1e-4]},
    ):
        torch.save(content, tmp_path / "x.pth")
        state = read_checkpoint(tmp_path / "x.pth")
        assert set(state) == set(weights) and torch.equal(state["a.weight"], weights["a.weight"])
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert set(read_checkpoint(tmp_path / "old.pth")) == set(weights)
    save_file(weights, tmp_path / "x.safetensors")
    assert set(read_checkpoint(tmp_path / "x.safetensors")) == set(weights)


def test_the_average_is_preferred_unless_raw_weights_are_asked_for(tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "ema_state_dict": {"module.a": torch.ones(1)}}, tmp_path / "x.pth")
    assert read_checkpoint(tmp_path / "x.pth")["a"] == 1
    assert read_checkpoint(tmp_path / "x.pth", ema=False)["a"] == 0


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_code_in_a_file_is_refused_by_name(tmp_path, capsys):
    torch.save({"model": {"a": torch.zeros(1)}, "config": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil.pth: contains the object \S*print"):
        read_checkpoint(tmp_path / "evil.pth")
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "look"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"hello world\n", "a text file"),
        (b"\x89\x00\xff\x13" * 40, "an unknown or damaged binary file"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, content, look):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=look):
        read_checkpoint(path)


def test_truncated_and_empty_checkpoints(tmp_path):
    stream = io.BytesIO()
    torch.save({"a": torch.randn(1000)}, stream)
    (tmp_path / "half.pth").write_bytes(stream.getvalue()[:2000])
    with pytest.raises(UserError, match="a zip archive"):
        read_checkpoint(tmp_path / "half.pth")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(UserError, match="without a state dict"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(UserError, match="no such file"):
        read_checkpoint(tmp_path / "missing.pth")
    (tmp_path / "bad.safetensors").write_bytes(b"x" * 20)
    with pytest.raises(UserError, match="not a readable safetensors"):
        read_checkpoint(tmp_path / "bad.safetensors")


def test_descriptions():
    assert describe_state({"beit3.encoder.x": 0}) == "a BEiT-3 pre-training checkpoint (that is for pretrained=)"
    assert describe_state({"head.transformer.img_enhance.text_proj.bias": 0}) == "an ALVG checkpoint"
    assert describe_state({"zzz": 0}) == "an unknown model whose first key is 'zzz'"
    assert describe_state({}) == "an empty state dict"
