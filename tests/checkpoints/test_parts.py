"""Training that starts from several files: which files count, and what is told about those that do not fit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vgbench.checkpoints.names import LoadReport, describe_state
from vgbench.checkpoints.parts import Part, checkpoint_files, load_parts
from vgbench.core.errors import UserError


def report_of(state: dict[str, torch.Tensor]) -> LoadReport:
    return LoadReport(used=tuple(state), unused=("spare",))


PARTS = (
    Part("body", lambda state: "layer1.0.conv1.weight" in state, report_of),
    Part("text", lambda state: "bert.embeddings.word_embeddings.weight" in state, report_of),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "body.pth")
    (tmp_path / "bert").mkdir()
    save_file({"bert.embeddings.word_embeddings.weight": torch.zeros(1)}, tmp_path / "bert" / "model.safetensors")
    torch.save({"x": torch.zeros(1)}, tmp_path / "bert" / "pytorch_model.bin")  # the same weights once more
    (tmp_path / "bert" / "config.json").write_text("{}")
    return tmp_path


def test_a_transformers_folder_counts_once_by_its_safetensors(folder: Path) -> None:
    assert [file.name for file in checkpoint_files(folder)] == ["body.pth", "model.safetensors"]
    (folder / "bert" / "model.safetensors").unlink()
    assert [file.name for file in checkpoint_files(folder)] == ["body.pth", "pytorch_model.bin"]
    assert checkpoint_files(folder / "body.pth") == [folder / "body.pth"]


def test_every_file_reaches_the_part_that_recognises_it(folder: Path) -> None:
    reports = load_parts(folder, PARTS, "give both")
    assert {name: report.used[0] for name, report in reports.items()} == {
        "body": "layer1.0.conv1.weight",
        "text": "bert.embeddings.word_embeddings.weight",
    }
    joined = LoadReport.joined(reports.values())
    assert len(joined.used) == 2 and joined.unused == ("spare", "spare") and joined.absent == ()


def test_what_does_not_fit_is_named(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UserError, match="holds no checkpoint; give both"):
        load_parts(tmp_path_factory.mktemp("empty"), PARTS, "give both")
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, folder / "other.pth")
    with pytest.raises(UserError, match=r"more than one body checkpoint, .*other\.pth is the second"):
        load_parts(folder, PARTS, "give both")
    torch.save({"transformer.encoder.layers.0.norm1.bias": torch.zeros(1)}, folder / "other.pth")
    with pytest.raises(UserError, match="neither body nor text but a DETR checkpoint; give both"):
        load_parts(folder, PARTS, "give both")


@pytest.mark.parametrize(
    ("key", "description"),
    [
        ("head.transformer.decoder.layers.0.linear1.weight", "an ALVG checkpoint without image enhancement"),
        ("head.input_cls_proj.bias", "a SimVG checkpoint"),
        ("weight_generator.S", "a VG-LAW checkpoint"),
        ("visual_encoder_m.norm.bias", "an ALBEF/AMC checkpoint"),
        ("visumodel.detr.input_proj.weight", "a TransVG/ResVG checkpoint"),
        ("backbone.net.pos_embed", "a ViTDet checkpoint"),
    ],
)
def test_a_state_dict_is_told_by_the_keys_that_methods_declare(key: str, description: str) -> None:
    shared = ["vis_enc.beit3.encoder.x"] if key.startswith("head.") else []
    assert describe_state([*shared, key]) == description
