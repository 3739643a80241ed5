from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from safetensors.torch import save_file
from transformers import BertConfig, BertModel, VitDetConfig, VitDetModel

from vgbench.core.errors import UserError
from vgbench.layers.vitdet import ViTDet
from vgbench.methods.vglaw import VGLAW
from vgbench.methods.vglaw.checkpoint import load_backbone, read_detectron2
from vgbench.methods.vglaw.mindspore import read_mindspore
from vgbench.training.weights import load

SIZES = {
    "image_size": 64,
    "dim": 8,
    "depth": 2,
    "heads": 2,
    "window_size": 2,
    "global_blocks": (1,),
    "pretrain_image_size": 32,
    "vocab_size": 20,
    "text_dim": 48,
    "text_layers": 2,
    "text_heads": 4,
    "text_ffn": 16,
    "max_positions": 16,
    "rank": 3,
    "key_dim": 4,
    "box_dim": 8,
    "mask_dim": 8,
}


def official_shapes(sizes: dict | None = None) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an official checkpoint, as the authors' modules have them."""
    s = {
        "dim": 768, "depth": 12, "heads": 12, "window_size": 14, "global_blocks": (2, 5, 8, 11), "image_size": 448,
        "pretrain_image_size": 224, "vocab_size": 30522, "text_dim": 768, "text_layers": 6, "text_ffn": 3072,
        "max_positions": 512, "rank": 32, "key_dim": 64, "box_dim": 256, "mask_dim": 256,
    } | (sizes or {})  # fmt: skip
    c, t, k = s["dim"], s["text_dim"], s["rank"]
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, out: int, inside: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, inside), (out,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.gamma"] = shapes[f"{name}.beta"] = (width,)

    for name, rows in (("word", s["vocab_size"]), ("position", s["max_positions"]), ("token_type", 2)):
        shapes[f"text_encoder.embeddings.{name}_embeddings.embedding_table"] = (rows, t)
    norm("text_encoder.embeddings.layer_norm", t)
    for j in range(s["text_layers"]):
        layer = f"text_encoder.encoder.layer.{j}"
        for part in ("query", "key", "value"):
            linear(f"{layer}.attention.self_attn.{part}", t, t)
        linear(f"{layer}.attention.output.dense", t, t)
        norm(f"{layer}.attention.output.layer_norm", t)
        linear(f"{layer}.intermediate.dense", s["text_ffn"], t)
        linear(f"{layer}.output.dense", t, s["text_ffn"])
        norm(f"{layer}.output.layer_norm", t)
    linear("text_encoder.pooler.dense", t, t)
    shapes["visual_encoder.pos_embed"] = (1, 1 + (s["pretrain_image_size"] // 16) ** 2, c)
    shapes["visual_encoder.patch_embed.proj.weight"] = (c, 3, 16, 16)
    shapes["visual_encoder.patch_embed.proj.bias"] = (c,)
    for i in range(s["depth"]):
        block = f"visual_encoder.blocks.{i}"
        norm(f"{block}.norm1", c)
        norm(f"{block}.norm2", c)
        side = s["image_size"] // 16 if i in s["global_blocks"] else s["window_size"]
        for axis in "hw":
            shapes[f"{block}.attn.rel_pos_{axis}"] = (2 * side - 1, c // s["heads"])
        linear(f"{block}.attn.qkv", 3 * c, c)
        linear(f"{block}.attn.proj", c, c)
        linear(f"{block}.mlp.fc1", 4 * c, c)
        linear(f"{block}.mlp.fc2", c, 4 * c)
        linear(f"weight_generator.proj.{i}.0", t // 16, t)
        norm(f"weight_generator.proj.{i}.1", t // 16)
        linear(f"weight_generator.proj.{i}.3", k * k, t // 16)
    shapes["weight_generator.S"] = (3 * c, k, 1)
    shapes["weight_generator.D"] = (k, c, 1)
    shapes["weight_generator.layer_embedding"] = (s["depth"], 1, t)
    linear("ada_gap.q_proj", s["key_dim"], t)
    linear("ada_gap.k_proj", s["key_dim"], c)
    shapes["up_sample.0.weight"], shapes["up_sample.0.bias"] = (c, s["mask_dim"], 2, 2), (s["mask_dim"],)
    shapes["up_sample.1.weight"] = shapes["up_sample.1.bias"] = (s["mask_dim"],)
    shapes["up_sample.3.weight"], shapes["up_sample.3.bias"] = (s["mask_dim"], t, 2, 2), (t,)
    for index, (out, inside) in enumerate(((s["box_dim"], c), (s["box_dim"], s["box_dim"]), (4, s["box_dim"]))):
        linear(f"bbox_pred.layers.{index}", out, inside)
    return shapes


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def detectron2_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of Detectron2's ViTDet Mask R-CNN with ViT-B at 1024 px (a part of the heads)."""
    shapes: dict[str, tuple[int, ...]] = {
        "backbone.net.pos_embed": (1, 197, 768),
        "backbone.net.patch_embed.proj.weight": (768, 3, 16, 16),
        "backbone.net.patch_embed.proj.bias": (768,),
        "backbone.simfp_2.0.weight": (768, 384, 2, 2),
        "backbone.simfp_5.1.norm.bias": (256,),
        "proposal_generator.rpn_head.conv.conv0.weight": (256, 256, 3, 3),
        "roi_heads.mask_head.predictor.weight": (80, 256, 1, 1),
    }
    for i in range(12):
        block = f"backbone.net.blocks.{i}"
        rows = 127 if i in (2, 5, 8, 11) else 27
        shapes |= {f"{block}.attn.rel_pos_{axis}": (rows, 64) for axis in "hw"}
        for name, out, inside in (
            ("attn.qkv", 2304, 768),
            ("attn.proj", 768, 768),
            ("mlp.fc1", 3072, 768),
            ("mlp.fc2", 768, 3072),
        ):
            shapes[f"{block}.{name}.weight"], shapes[f"{block}.{name}.bias"] = (out, inside), (out,)
        for name in ("norm1", "norm2"):
            shapes[f"{block}.{name}.weight"] = shapes[f"{block}.{name}.bias"] = (768,)
    return shapes


def hollow(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Tensors of these shapes that share one number in memory."""
    return {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}


# --- the official model ----------------------------------------------------------------------------------------------


def test_every_official_key_at_official_sizes():
    with torch.device("meta"):
        method = VGLAW()
    state = hollow(official_shapes())
    assert len(state) == 365
    report = method.load_official(state)
    assert set(report.unused) == {"text_encoder.pooler.dense.weight", "text_encoder.pooler.dense.bias"}
    assert set(report.used) | set(report.unused) == set(state) and not report.adapted


def test_values_reach_their_place():
    method = VGLAW(**SIZES)
    state = random_state(official_shapes(SIZES))
    method.load_official(state)
    ours = dict(method.model.named_parameters())
    for name, official in {
        "text_encoder.embeddings.LayerNorm.bias": "text_encoder.embeddings.layer_norm.beta",
        "text_encoder.encoder.layer.1.attention.self.key.weight": (
            "text_encoder.encoder.layer.1.attention.self_attn.key.weight"
        ),
        "visual_encoder.blocks.1.norm2.weight": "visual_encoder.blocks.1.norm2.gamma",
        "up_sample.1.weight": "up_sample.1.weight",
        "bbox_pred.layers.2.bias": "bbox_pred.layers.2.bias",
    }.items():
        assert torch.equal(ours[name], state[official])
    assert torch.equal(ours["weight_generator.S"], state["weight_generator.S"][..., 0])
    second = ours["weight_generator.proj.fc2_weight"].unflatten(0, (2, 9))[1]
    assert torch.equal(second, state["weight_generator.proj.1.3.weight"])


@pytest.mark.parametrize("name", ["weight_generator.S", "bbox_pred.layers.0.weight", "ada_gap.q_proj.bias"])
def test_official_state_is_checked(name):
    method = VGLAW(**SIZES)
    state = random_state(official_shapes(SIZES))
    with pytest.raises(UserError, match=f"missing, the first is '{name}'"):
        method.load_official({key: value for key, value in state.items() if key != name})
    with pytest.raises(UserError, match="does not fit"):
        method.load_official({**state, name: torch.zeros(7, 5)})
    with pytest.raises(UserError, match="unknown"):
        method.load_official({**state, f"{name}.more": torch.zeros(1)})


def test_rec_mode_leaves_the_mask_head_out():
    report = VGLAW(**SIZES, mode="rec").load_official(random_state(official_shapes(SIZES)))
    assert sum(name.startswith("up_sample.") for name in report.unused) == 6
    with pytest.raises(UserError, match="unknown"):
        VGLAW(**SIZES, mode="rec").load_official({**random_state(official_shapes(SIZES)), "other": torch.zeros(1)})


# --- MindSpore files -------------------------------------------------------------------------------------------------


def mindspore_messages():
    """MindSpore's checkpoint.proto, built for Google's protobuf library."""
    file = descriptor_pb2.FileDescriptorProto(name="vglaw_test_checkpoint.proto", syntax="proto2")
    kinds = descriptor_pb2.FieldDescriptorProto

    def field(message, name, number, kind, label=kinds.LABEL_OPTIONAL, of=None):
        message.field.add(name=name, number=number, type=kind, label=label, type_name=of)

    tensor = file.message_type.add(name="TensorProto")
    field(tensor, "dims", 1, kinds.TYPE_INT64, kinds.LABEL_REPEATED)
    field(tensor, "tensor_type", 2, kinds.TYPE_STRING)
    field(tensor, "tensor_content", 3, kinds.TYPE_BYTES)
    mapping = file.message_type.add(name="MapTensorProto")
    field(mapping, "name", 1, kinds.TYPE_STRING)
    value = file.message_type.add(name="Value")
    field(value, "tag", 1, kinds.TYPE_STRING)
    field(value, "tensor", 2, kinds.TYPE_MESSAGE, of="TensorProto")
    field(value, "maptensor", 3, kinds.TYPE_MESSAGE, of="MapTensorProto")
    top = file.message_type.add(name="Checkpoint")
    field(top, "value", 1, kinds.TYPE_MESSAGE, kinds.LABEL_REPEATED, of="Value")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Checkpoint"))()


TYPES = {
    torch.float32: "Float32", torch.float16: "Float16", torch.bfloat16: "BFloat16", torch.int32: "Int32",
    torch.int64: "Int64", torch.bool: "Bool",
}  # fmt: skip


def mindspore_bytes(state: dict[str, torch.Tensor], cut: int | None = None) -> bytes:
    """A checkpoint as MindSpore writes it; ``cut``: largest number of bytes per entry."""
    message = mindspore_messages()
    for name, value in state.items():
        flat = value.reshape(-1)
        content = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
        step = cut or max(1, len(content))
        for start in range(0, max(1, len(content)), step):
            entry = message.value.add(tag=name)
            entry.tensor.dims.extend(value.shape or [0])
            entry.tensor.tensor_type = TYPES[value.dtype]
            entry.tensor.tensor_content = content[start : start + step]
    return message.SerializeToString()


def test_mindspore_file_written_by_protobuf(tmp_path):
    state = {
        "a.weight": torch.randn(3, 4),
        "half": torch.randn(5).half(),
        "brain": torch.randn(2, 3).bfloat16(),
        "step": torch.tensor(300, dtype=torch.int32),
        "one": torch.tensor([7], dtype=torch.int64),
        "flag": torch.tensor([True, False]),
        "long.name" * 20: torch.randn(1, 200),
    }
    path = tmp_path / "model.ckpt"
    for cut in (None, 8):
        path.write_bytes(mindspore_bytes(state, cut))
        found = read_mindspore(path)
        assert list(found) == list(state)
        for name, value in state.items():
            assert found[name].dtype == value.dtype and torch.equal(found[name], value)


def test_official_mindspore_checkpoint_loads(tmp_path):
    state = random_state(official_shapes(SIZES))
    path = tmp_path / "law_fpt_vit_refcoco_shareSD_mt.ckpt"
    path.write_bytes(mindspore_bytes(state))
    method, other = VGLAW(**SIZES), VGLAW(**SIZES)
    method.load_official(method.read_official(path))
    other.load_official(state)
    for one, two in zip(method.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    plain = tmp_path / "model.safetensors"
    save_file(state, plain)
    assert set(method.read_official(plain)) == set(state)
    torch.save(state, tmp_path / "torch.ckpt")
    assert set(method.read_official(tmp_path / "torch.ckpt")) == set(state)


def test_weights_option_reads_mindspore(tmp_path):
    path = tmp_path / "official.ckpt"
    path.write_bytes(mindspore_bytes(random_state(official_shapes(SIZES))))
    assert len(load(VGLAW(**SIZES), path).unused) == 2


def test_damaged_mindspore_files(tmp_path):
    path = tmp_path / "model.ckpt"
    content = mindspore_bytes({"a": torch.randn(2, 3), "b": torch.randn(4)})
    whole = {"a", "b"}
    for length in range(len(content)):  # every truncation is noticed, or ends between two entries
        path.write_bytes(content[:length])
        try:
            assert set(read_mindspore(path)) < whole
        except UserError as error:
            assert "\n" not in str(error) and str(path) in str(error)
    random = np.random.default_rng(0)
    for number in range(120):
        damaged = bytearray(content)
        for position in random.integers(0, len(content), 1 + number % 4):
            damaged[position] = random.integers(256)
        path.write_bytes(bytes(damaged))
        try:
            read_mindspore(path)
        except UserError as error:
            assert str(path) in str(error)
        path.write_bytes(b"\x0a" + random.bytes(int(random.integers(1, 200))))
        with pytest.raises(UserError, match="not a MindSpore checkpoint"):
            read_mindspore(path)


def test_refused_mindspore_files(tmp_path):
    path = tmp_path / "model.ckpt"
    with pytest.raises(UserError, match="cannot be read"):
        read_mindspore(path)

    def refuse(content: bytes, why: str) -> None:
        path.write_bytes(content)
        with pytest.raises(UserError, match=why):
            read_mindspore(path)

    refuse(b"", "cannot be read")
    single = mindspore_bytes({"a": torch.zeros(2)})
    refuse(single + mindspore_bytes({"b": torch.zeros(1)}) + single, "'a' occurs twice")
    message = mindspore_messages()
    message.value.add(tag="table").maptensor.name = "x"
    refuse(message.SerializeToString(), "map tensor")
    for kind, dims, why in (
        ("Float32", [1 << 40], "needs"),
        ("Float32", [-1], "needs"),
        ("Object", [2], "type 'Object'"),
        ("Float32", [1] * 40, "40 dimensions"),
    ):
        message = mindspore_messages()
        entry = message.value.add(tag="a").tensor
        entry.dims.extend(dims)
        entry.tensor_type, entry.tensor_content = kind, b"\0" * 8
        refuse(message.SerializeToString(), why)


# --- Detectron2 ------------------------------------------------------------------------------------------------------


def test_every_detectron2_key_at_official_sizes():
    with torch.device("meta"):
        backbone = VGLAW().model.visual_encoder
    state = hollow(detectron2_shapes())
    report = load_backbone(backbone, state)
    assert len(report.used) == 171 and len(report.unused) == 4
    assert set(report.used) | set(report.unused) == set(state)
    assert len(report.adapted) == 8 and all(".rel_pos_" in name for name in report.adapted)
    with pytest.raises(UserError, match="unknown"):
        load_backbone(backbone, {**state, "backbone.net.norm.weight": torch.zeros(768)})
    with pytest.raises(UserError, match="looks like an ALBEF"):
        load_backbone(backbone, {"text_encoder.x": torch.zeros(1)})


def small_backbone(side: int = 6, window: int = 2, pretrain: int = 2) -> ViTDet:
    return ViTDet(
        image_size=16 * side,
        dim=8,
        depth=2,
        heads=2,
        window_size=window,
        global_blocks=(1,),
        pretrain_image_size=16 * pretrain,
    )


def detector_of(backbone: ViTDet) -> dict[str, torch.Tensor]:
    state = {f"backbone.net.{name}": value for name, value in backbone.state_dict().items()}
    return {**state, "roi_heads.box.weight": torch.zeros(2)}


def test_relative_positions_are_cropped_to_the_centre():
    """28 x 28 tokens take rows 36 to 90 of the 127 rows of a 64 x 64 grid: distances -27 to 27."""
    source, target = small_backbone(side=64), small_backbone(side=28)
    table = source.blocks[1].attn.rel_pos_h
    table.data = torch.arange(127.0)[:, None].repeat(1, 4)
    report = load_backbone(target, detector_of(source))
    assert target.blocks[1].attn.rel_pos_h[:, 0].tolist() == list(map(float, range(36, 91)))
    assert torch.equal(target.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)
    assert set(report.adapted) == {f"backbone.net.blocks.1.attn.rel_pos_{axis}" for axis in "hw"}


def test_position_tables_of_other_sizes():
    source, target = small_backbone(side=3, pretrain=2), small_backbone(side=5, pretrain=4)
    source.blocks[1].attn.rel_pos_w.data = torch.linspace(-2, 2, 5)[:, None].repeat(1, 4)
    source.pos_embed.data[:, 1:] = 3.0
    report = load_backbone(target, detector_of(source))
    grown = target.blocks[1].attn.rel_pos_w[:, 0]
    assert len(grown) == 9 and grown[4] == 0 and grown.diff().min() >= 0
    assert torch.equal(target.pos_embed[:, 0], source.pos_embed[:, 0])
    torch.testing.assert_close(target.pos_embed[:, 1:], torch.full((1, 16, 8), 3.0))
    assert len(report.adapted) == 3


def as_arrays(state: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in state.items()}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_zoo_pickle(tmp_path, protocol):
    state = detector_of(small_backbone())
    path = tmp_path / "model_final.pkl"
    content = {"model": as_arrays(state), "__author__": "Detectron2 Model Zoo", "extra": {1, 2}}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found = read_detectron2(path)
    assert list(found) == list(state)
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_pth_forms(tmp_path):
    source = small_backbone()
    state = detector_of(source)
    bare = {name.removeprefix("backbone."): value for name, value in state.items() if "net." in name}
    plain = dict(source.state_dict())
    for number, content in enumerate(({"model": state, "iteration": 9}, state, bare, plain)):
        path = tmp_path / f"{number}.pth"
        torch.save(content, path)
        target = small_backbone()
        load_backbone(target, read_detectron2(path))
        for one, two in zip(target.parameters(), source.parameters(), strict=True):
            assert torch.equal(one, two)


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harm",)


def test_pickles_are_restricted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pkl"

    def refuse(content: bytes, why: str) -> None:
        path.write_bytes(content)
        with pytest.raises(UserError, match=why):
            read_detectron2(path)

    refuse(pickle.dumps({"model": {"a": Harmful()}}), r"(posix|nt)\.system")
    assert not (tmp_path / "harm").exists()
    refuse(pickle.dumps({"model": {"a": Path("x")}}), r"pathlib")
    refuse(b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval")
    refuse(b"c__builtin__\ngetattr\n(S'1'\ntR.", "builtins.getattr")
    refuse(b"c_codecs\nencode\n(S'1'\nS'zip'\ntR.", "not loaded")
    refuse(pickle.dumps({"model": {"a": 3}}), "no arrays under 'model'")
    refuse(pickle.dumps({"model": {"a": np.array(["text"])}}), "no numbers")
    refuse(pickle.dumps([1, 2]), "no arrays")
    content = pickle.dumps({"model": {"a": np.zeros(100)}})
    for length in range(0, len(content), 37):
        refuse(content[:length], str(path))
    refuse(os.urandom(200), str(path))
    with pytest.raises(UserError, match="cannot be read"):
        read_detectron2(tmp_path / "none.pkl")


# --- pretrained parts ------------------------------------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path):
    """A folder with a ViTDet pickle and a transformers folder, and what is in them."""
    torch.manual_seed(5)
    backbone = VGLAW(**SIZES).model.visual_encoder
    bert = BertModel(
        BertConfig(
            vocab_size=20,
            hidden_size=48,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=16,
            max_position_embeddings=16,
        )
    ).eval()
    folder = tmp_path / "pretrained"
    folder.mkdir()
    (folder / "model_final_61ccd1.pkl").write_bytes(pickle.dumps({"model": as_arrays(detector_of(backbone))}))
    bert.save_pretrained(folder / "bert-base-uncased")
    return folder, backbone, bert


def test_both_pretrained_parts(parts):
    folder, backbone, bert = parts
    method = VGLAW(**SIZES).eval()
    report = method.load_pretrained(folder)
    for one, two in zip(method.model.visual_encoder.parameters(), backbone.parameters(), strict=True):
        assert torch.equal(one, two)
    ids, pad = torch.randint(1, 20, (2, 6)), torch.zeros(2, 6, dtype=torch.bool)
    pad[1, 4:] = True
    with torch.no_grad():
        # the first two of its four layers
        wanted = bert(ids, attention_mask=(~pad).long(), output_hidden_states=True).hidden_states[2]
        found = method.model.text_encoder(ids, pad)[-1]
    torch.testing.assert_close(found[~pad], wanted[~pad], atol=1e-5, rtol=1e-5)
    assert "encoder.layer.3.output.dense.bias" in report.unused and "roi_heads.box.weight" in report.unused
    assert not method.model.weight_generator.proj.fc2_weight.any()


def test_one_pretrained_part(parts, caplog):
    folder, _, bert = parts
    method = VGLAW(**SIZES)
    with caplog.at_level(logging.WARNING):
        method.load_pretrained(folder / "bert-base-uncased" / "model.safetensors")
    assert "no ViTDet" in caplog.text
    table = method.model.text_encoder.embeddings.word_embeddings.weight
    assert torch.equal(table, bert.embeddings.word_embeddings.weight)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        method.load_pretrained(folder / "model_final_61ccd1.pkl")
    assert "no BERT" in caplog.text


def test_wrong_pretrained_folders(parts, tmp_path):
    folder, backbone, _ = parts
    method = VGLAW(**SIZES)
    torch.save(detector_of(backbone), folder / "second.pth")
    with pytest.raises(UserError, match="more than one ViTDet"):
        method.load_pretrained(folder)
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, folder / "second.pth")
    with pytest.raises(UserError, match="a ResNet"):
        method.load_pretrained(folder)
    (folder / "second.pth").unlink()
    (folder / "model_final_61ccd1.pkl").unlink()
    with pytest.raises(UserError, match="no ViTDet"):
        method.load_pretrained(folder)
    with pytest.raises(UserError, match="does not fit"):
        VGLAW(**{**SIZES, "vocab_size": 21}).load_pretrained(folder / "bert-base-uncased" / "model.safetensors")


# --- other implementations of the backbone ---------------------------------------------------------------------------


def test_backbone_equals_transformers():
    torch.manual_seed(0)
    theirs = VitDetModel(
        VitDetConfig(
            hidden_size=48,
            num_hidden_layers=4,
            num_attention_heads=3,
            image_size=160,
            pretrain_image_size=96,
            window_block_indices=[0, 2],
            window_size=4,
            use_relative_position_embeddings=True,
            drop_path_rate=0.0,
        )
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    ours = ViTDet(
        image_size=160, dim=48, depth=4, heads=3, window_size=4, drop_path=0.0, global_blocks=(1, 3),
        pretrain_image_size=96,
    ).eval()  # fmt: skip
    names = {"embeddings.position_embeddings": "pos_embed", "embeddings.projection": "patch_embed.proj"}
    names |= {"encoder.layer": "blocks", ".attention.": ".attn."}
    state = {}
    for name, value in theirs.state_dict().items():
        for old, new in names.items():
            name = name.replace(old, new)
        state[name] = value
    load_backbone(ours, state)
    for height, width in ((160, 160), (96, 128)):  # 6 x 8 tokens: windows are filled up, tables are interpolated
        image = torch.randn(2, 3, height, width)
        with torch.no_grad():
            torch.testing.assert_close(ours(image), theirs(image).last_hidden_state, atol=1e-4, rtol=1e-4)


def test_backbone_equals_detectron2():
    vit = pytest.importorskip("detectron2.modeling.backbone.vit", reason="needs detectron2")
    torch.manual_seed(0)
    sizes = {"depth": 4, "mlp_ratio": 4.0, "window_size": 4}
    theirs = vit.ViT(
        img_size=160,
        embed_dim=48,
        num_heads=3,
        drop_path_rate=0.0,
        window_block_indexes=[0, 2],
        use_rel_pos=True,
        pretrain_img_size=96,
        out_feature="last_feat",
        **sizes,
    ).eval()
    ours = ViTDet(
        image_size=160, dim=48, heads=3, drop_path=0.0, global_blocks=(1, 3), pretrain_image_size=96, **sizes
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    load_backbone(ours, {f"backbone.net.{name}": value for name, value in theirs.state_dict().items()})
    for height, width in ((160, 160), (96, 128)):
        image = torch.randn(2, 3, height, width)
        with torch.no_grad():
            torch.testing.assert_close(ours(image), theirs(image)["last_feat"], atol=1e-4, rtol=1e-4)
