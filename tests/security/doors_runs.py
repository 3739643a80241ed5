"""Doors for results: predictions, records, run folders, models, checkpoints, configurations."""

from __future__ import annotations

import functools
import io
import json
import os
import random
import zipfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file

from tests.security.doors_data import rle, table, written
from tests.security.harness import Door
from tests.security.mutation import CALL, HOSTILE, MAKE, SAVE, TOUCH, bytes_damage, damage, mutated
from vgbench.checkpoints.read import read_checkpoint
from vgbench.config.compose import compose
from vgbench.config.identity import resolved
from vgbench.config.stored import make_method, stored_config
from vgbench.data.leakage import SeenImages
from vgbench.leaderboard.compare import compare
from vgbench.leaderboard.page import write_page
from vgbench.leaderboard.versus import versus
from vgbench.leaderboard.versus_text import format_versus
from vgbench.metrics.evaluator import evaluate_predictions
from vgbench.predictions.foreign import read_foreign
from vgbench.predictions.reader import read_predictions
from vgbench.predictions.reading import Reading
from vgbench.predictions.writer import PredictionWriter
from vgbench.records import store
from vgbench.training import weights
from vgbench.training.checkpoints import CheckpointFiles, newest_checkpoint
from vgbench.training.folder import run_folder

SMALL = {"encoder_layers": 1, "encoder_width": 16, "encoder_ffn": 32, "width": 16, "ffn": 16, "query_ffn": 16}
SMALL |= {"mask_channels": 8}


def answers() -> list[dict[str, Any]]:
    entries = []
    for number in range(5):
        box = [1.0 + number, 2.0, 30.0, 20.0]
        entry: dict[str, Any] = {"key": str(number), "boxes": [box, [0, 0, 5, 5]], "scores": [0.9, 0.3]}
        entry |= {"mask": {"size": [48, 64], "counts": rle([1, 2, 30, 20])}, "no_target": False, "point": [3, 4]}
        entry["heatmap"] = {"size": [2, 2], "values": [0.1, 0.2, 0.3, 0.4]}
        entries.append(entry)
    return entries


def write_answers(folder: Path) -> None:
    (folder / "answers.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in answers()))


def write_answers_parquet(folder: Path) -> None:
    write_answers(folder)
    with PredictionWriter(folder / "answers.parquet") as writer:
        writer.write_table(read_predictions(folder / "answers.jsonl"))
    (folder / "answers.jsonl").unlink()


def scored(ending: str) -> Callable[[Path], Any]:
    def use(folder: Path) -> Any:
        predictions = read_predictions(folder / f"answers.{ending}", table(), missing="empty")
        return evaluate_predictions(table(), predictions, tasks=["rec", "res"], bootstrap=0).as_dict()

    return use


WORDS = ["[1, 2, 30, 20]", '```json\n[{"bbox_2d": [1, 2, 30, 20], "label": "cup"}]\n```', "<box>(1,2),(30,20)</box>"]
FOREIGN = {
    "coco.json": ("coco", [{"id": n, "bbox": [1, 2, 30, 20], "score": 0.5} for n in range(5)]),
    "grefcoco.json": ("grefcoco", [{"id": n, "boxes": [[1, 2, 30, 20]], "scores": [0.5]} for n in range(5)]),
    "text.json": ("text", {"results": [{"id": n, "answer": WORDS[n % 3]} for n in range(5)]}),
    "text.jsonl": ("text", [{"id": n, "answer": WORDS[n % 3]} for n in range(5)]),
}


def write_foreign(folder: Path) -> None:
    for name, (_, content) in FOREIGN.items():
        text = json.dumps(content)
        if name.endswith(".jsonl"):
            text = "".join(f"{json.dumps(entry)}\n" for entry in content)
        (folder / name).write_text(text)
    (folder / "text.tsv").write_text("id\tanswer\n" + "".join(f"{n}\t[1, 2, 30, 20]\n" for n in range(5)))
    (folder / "text.csv").write_text("id,answer\n" + "".join(f'{n},"[1, 2, 30, 20]"\n' for n in range(5)))
    (folder / "text.xlsx").write_bytes(spreadsheet())
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"id": n, "answer": "[1, 2, 30, 20]"} for n in range(5)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "text.parquet")


def spreadsheet(shared: str = "", sheet: str = "") -> bytes:
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    shared = shared or f"<sst {space}><si><t>id</t></si><si><t>answer</t></si><si><t>[1, 2, 30, 20]</t></si></sst>"
    head = '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c></row>'
    rows = "".join(f'<row><c r="A{n + 2}"><v>{n}</v></c><c r="B{n + 2}" t="s"><v>2</v></c></row>' for n in range(5))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", shared)
        archive.writestr("xl/worksheets/sheet1.xml", sheet or f"<worksheet {space}>{head}{rows}</worksheet>")
    return out.getvalue()


PAIRS = list(zip("abcdefgh", "bcdefghi", strict=True))
GROWTH = "".join(f'<!ENTITY {second} "{f"&{first};" * 10}">' for first, second in PAIRS)
ENTITIES = f'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{GROWTH}]>'


def damage_foreign(folder: Path, generator: random.Random) -> str:
    if generator.random() < 0.15:
        kind = generator.choice(["entities", "grown", "values"])
        sheet = f"{ENTITIES}<worksheet>&i;</worksheet>"
        if kind == "grown":
            sheet = "<worksheet>" + " " * 30_000_000
        if kind == "values":
            cell = f'<c r="{generator.choice(["A1", "1", "AAAAAAAA9", ""])}" t="{generator.choice("snbe")}"><v>'
            cell += generator.choice(["-1", "99", "x", "1e999", "nan"])
            sheet = f"<worksheet><row>{cell}</v></c></row></worksheet>"
            space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
            sheet = sheet.replace("<worksheet>", f"<worksheet {space}>")
        (folder / "text.xlsx").write_bytes(spreadsheet(sheet=sheet))
        return f"text.xlsx {kind}"
    return damage(folder, generator)


def use_foreign(folder: Path) -> Any:
    """Read the file that was damaged: the newest one."""
    path = max(folder.iterdir(), key=lambda path: path.lstat().st_mtime_ns)
    form = path.stem
    if not path.exists() or form not in ("coco", "grefcoco", "text"):
        path, form = folder / "text.json", "text"
    scale = {"scale": "pixels"} if form == "text" else {}
    predictions, notes = read_foreign(path, table(), Reading.from_options({"format": form, "match": "row", **scale}))
    return evaluate_predictions(table(), predictions, tasks=["rec"], bootstrap=0).as_dict(), notes


@functools.cache
def shipped_record() -> str:
    place = Path(str(files("vgbench.leaderboards")))
    return next(iter(sorted(place.rglob("record.json")))).read_text()


def write_run(folder: Path) -> None:
    """A run folder with all that a page and a comparison look at."""
    run = folder / "run"
    (run / "logs").mkdir(parents=True)
    record = json.loads(shipped_record())
    (run / "record.json").write_text(json.dumps(record))
    (run / "logs" / "metrics.csv").write_text("epoch,step,train/total,val/rec/prec@0.5\n0,1,3.5,\n0,2,2.5,\n0,2,,40\n")
    place = run / "examples" / "val"
    place.mkdir(parents=True)
    for name in ("00.jpg", "01.png"):
        Image.new("RGB", (64, 48), (9, 120, 90)).save(place / name)
    out = io.BytesIO()
    Image.new("L", (4, 4), 9).save(out, "PNG")
    import base64

    answer = {"boxes": [[1, 2, 3, 4]], "scores": [0.5], "outlines": [[1, 2, 3, 4]], "no_target": None, "point": [1, 2]}
    answer |= {"iou": 0.5, "right": True, "heatmap": base64.b64encode(out.getvalue()).decode()}
    entries = [
        {
            **{"key": name, "expression": "a cup", "image": name, "width": 64, "height": 48},
            **{"truth": {"boxes": [[1, 2, 3, 4]], "outlines": []}, "predictions": {"main": answer}},
        }
        for name in ("00.jpg", "01.png")
    ]
    info = {"dataset": "x", "split": "val", "data_hash": record["results"][0]["data_hash"], "examples": entries}
    (place / "examples.json").write_text(json.dumps(info))


def use_page(folder: Path) -> str:
    return write_page(store.find([folder / "run"]), folder / "page").read_text()


def write_record(folder: Path) -> None:
    (folder / "run").mkdir()
    (folder / "run" / "record.json").write_text(json.dumps(json.loads(shipped_record())))


def use_record(folder: Path) -> str:
    records = store.find([folder / "run"])
    return "".join(compare(records, form) for form in ("markdown", "latex", "csv", "json"))  # type: ignore[arg-type]


def write_two_runs(folder: Path) -> None:
    """Two run folders whose predictions are compared expression by expression."""
    written("refer_json")(folder / "data")
    from vgbench.datasets.refcoco import RefCOCO
    from vgbench.records.external import ExternalSplit, register

    data = RefCOCO(folder / "data", cache_dir=folder / "cache")
    from omegaconf import OmegaConf

    node = {"_target_": "vgbench.datasets.refcoco.RefCOCO", "data_root": "data", "cache_dir": "cache"}
    rows = data.load("val")
    for number in range(2):
        keys = rows.column("key").tolist()
        one = {"boxes": [[1 + 9 * number, 2, 30, 20]], "scores": [0.5]}
        entries = [{**entry, **one, "key": key} for entry, key in zip(answers(), keys, strict=True)]
        (folder / "x.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
        predictions = read_predictions(folder / "x.jsonl", rows)
        report = evaluate_predictions(rows, predictions, tasks=["rec"], bootstrap=0)
        splits = {"val": ExternalSplit(predictions, report)}
        register(folder / f"run{number}", f"m{number}", splits, data, OmegaConf.create(node))
    (folder / "x.jsonl").unlink()


def use_two_runs(folder: Path) -> str:
    first, second = (store.read(folder / f"run{number}") for number in range(2))
    return format_versus(versus(first, second, resamples=20), folder / "pictures")


def damage_runs(folder: Path, generator: random.Random) -> str:
    """The record or the predictions of one run; often its dataset."""
    run = folder / f"run{generator.randrange(2)}"
    file = run / "record.json"
    if generator.random() < 0.6:
        record = json.loads(file.read_text())
        node = record["config"]["dataset"]
        chance = generator.random()
        if chance < 0.5:
            key = generator.choice(["_target_", "data_root", "cache_dir", "image_root", "filter", "split_by", "x"])
            node[key] = generator.choice(HOSTILE)
        elif chance < 0.7:
            record["results"][0]["predictions"] = generator.choice(HOSTILE)
        else:
            record["config"]["dataset"] = generator.choice([TOUCH, MAKE, SAVE, CALL, mutated(node, generator)])
        try:
            file.write_text(json.dumps(record))
        except (RecursionError, UnicodeEncodeError):
            return damage(run, generator)
        return f"{run.name} dataset"
    return damage(run, generator)


@functools.cache
def method_node() -> dict[str, Any]:
    return resolved(compose(["method=alvg", "dataset=refshapes", *(f"method.{k}={v}" for k, v in SMALL.items())]))


@functools.cache
def small_method() -> Any:
    return make_method(method_node()["method"], "test")


def write_model(folder: Path) -> None:
    weights.save(small_method().state_dict(), method_node()["method"], folder / "model.safetensors")
    (folder / "model.safetensors.sha256").unlink()  # what strangers send has none


def damage_model(folder: Path, generator: random.Random) -> str:
    """The file's bytes, or the configuration in its metadata."""
    path = folder / "model.safetensors"
    if generator.random() < 0.4:
        return damage(folder, generator)
    node = {"method": json.loads(json.dumps(method_node()["method"]))}
    chance = generator.random()
    if chance < 0.4:
        node["method"][generator.choice(list(node["method"]))] = generator.choice(HOSTILE)
    elif chance < 0.5:
        node["method"] = generator.choice([TOUCH, MAKE, SAVE, CALL])
    else:
        node = mutated(node, generator)
    state = {name: value.contiguous() for name, value in small_method().state_dict().items()}
    if generator.random() < 0.3:
        name = generator.choice(sorted(state))
        other = [torch.zeros(0), torch.zeros(3), state[name].to(torch.int64), state[name].bool()]
        state[name] = generator.choice(other)
    try:
        text = json.dumps(node)
        if generator.random() < 0.2:
            text = bytes_damage(text.encode(), generator).decode("latin-1")
        save_file(state, path, metadata={"vgbench": text})
    except (RecursionError, UnicodeEncodeError):
        return damage(folder, generator)
    return "metadata"


def use_model(folder: Path) -> Any:
    """As ``vgbench export`` and ``checkpoint=`` do: the method that the file names, then its weights."""
    path = weights.resolve(str(folder / "model.safetensors"))
    node = weights.method_config(path)
    if node is None:
        return weights.load(small_method(), path)
    return weights.load(make_method(node, path), path)


def write_training(folder: Path) -> None:
    """A run folder with a checkpoint of a training, as it is resumed from and evaluated."""
    from omegaconf import OmegaConf

    run = folder / "runs" / "alvg-refshapes"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(method_node())))
    state = {f"method.{name}": value for name, value in small_method().state_dict().items()}
    content = {"pytorch-lightning_version": "2.6.0", "state_dict": state, "epoch": 1, "global_step": 3, "loops": {}}
    content |= {"callbacks": {}, "optimizer_states": [], "lr_schedulers": []}
    torch.save(content, run / "checkpoints" / "last.ckpt")
    SeenImages(table().column("image")).save(run)


def use_training(folder: Path) -> Any:
    sizes = [f"method.{name}={value}" for name, value in SMALL.items()]
    config = compose(["method=alvg", "dataset=refshapes", f"runs={folder}/runs", "resume=true", *sizes])
    run = folder / "runs" / "alvg-refshapes"
    stored_config(run / "config.yaml")
    os.environ.pop("VGBENCH_RUN_FOLDER", None)
    try:
        place = run_folder(config, "alvg-refshapes")
    finally:
        os.environ.pop("VGBENCH_RUN_FOLDER", None)
    SeenImages.read(place)
    path = newest_checkpoint(place)
    if path is None:
        return None
    CheckpointFiles().load_checkpoint(path)
    node = weights.method_config(path)
    return weights.load(small_method() if node is None else make_method(node, path), path)


class Runs:
    """An object whose pickle makes the canary."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("EXECUTED",)


def write_checkpoints(folder: Path) -> None:
    state = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.zeros(3), "n": torch.tensor(3)}
    torch.save({"state_dict": state, "epoch": 3}, folder / "new.pth")
    torch.save({"model": state, "epoch": 3}, folder / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, folder / "plain.safetensors")
    import pickle

    arrays = {"model": {name: value.numpy() for name, value in state.items()}, "__author__": "x"}
    (folder / "zoo.pkl").write_bytes(pickle.dumps(arrays, protocol=2))


def damage_checkpoints(folder: Path, generator: random.Random) -> str:
    """Bytes, or what torch.save writes of objects that are no weights."""
    if generator.random() < 0.6:
        return damage(folder, generator)
    values: list[Any] = [
        *(Runs(), {"state_dict": Runs()}, {"x": Runs(), "state_dict": {"a": torch.zeros(3)}}, [Runs()], print, Path),
        *(torch.nn.Linear(2, 2), {"a": torch.zeros(1).expand(10**9, 10**9)}, {"a": torch.zeros(2, device="meta")}),
        *({"a": torch.zeros(3).to_sparse()}, {"a": torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)}),
        *({1: torch.zeros(2)}, {"state_dict": {}}, {"state_dict": {"a": 1}}, [], None, "x", {"a": torch.zeros(0, 5)}),
        *({"model": {"module": {"model": {"a": torch.zeros(2)}}}}, {"a": bytearray(b"x"), "b": torch.zeros(1)}),
    ]
    name = generator.choice(["new.pth", "old.pth"])
    torch.save(generator.choice(values), folder / name, _use_new_zipfile_serialization=name == "new.pth")
    return f"{name} objects"


def use_checkpoints(folder: Path) -> Any:
    from vgbench.methods.vglaw.checkpoint import read_detectron2

    path = max(folder.iterdir(), key=lambda path: path.lstat().st_mtime_ns)
    if not path.exists():
        path = folder / path.name
    state = read_detectron2(path) if path.suffix == ".pkl" else read_checkpoint(path)
    return {name: tuple(value.float().sum(0, keepdim=True).shape) for name, value in state.items() if value.ndim}


RESULTS = (
    Door("predictions", write_answers, scored("jsonl")),
    Door("predictions in parquet", write_answers_parquet, scored("parquet")),
    Door("foreign predictions", write_foreign, use_foreign, damage_foreign),
    Door("records", write_record, use_record),
    Door("pages", write_run, use_page),
    Door("two runs", write_two_runs, use_two_runs, damage_runs, few=5),
)
MODELS = (
    Door("models", write_model, use_model, damage_model),
    Door("run folders", write_training, use_training, few=5),
    Door("checkpoints", write_checkpoints, use_checkpoints, damage_checkpoints),
)
