from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate

from vgbench.batches.synthetic import synthetic_batch
from vgbench.config.compose import compose
from vgbench.config.identity import method_identity
from vgbench.methods.resvg import ResVG

OFFICIAL = ("refcoco", "refcoco+", "refcocog", "referit", "flickr30k")
EMBEDDED = ("refshapes", "refshapes+", "refshapesg")


def config(dataset: str, *overrides: str):
    return compose(["method=resvg", f"dataset={dataset}", *overrides])


@pytest.mark.parametrize("dataset", OFFICIAL)
def test_official_recipe(dataset):
    """The table of the training recipe: AdamW at 1e-4 and 1e-5, a tenth after 60 of 90 epochs, clipping at 0.1."""
    run = config(dataset)
    with torch.device("meta"):
        method = instantiate(run.method)
    assert isinstance(method, ResVG)
    groups = method.param_groups(run.recipe.lr)
    assert {group["name"]: round(group["lr"], 10) for group in groups} == {
        "rest": 1e-4,
        "backbone": 1e-5,
        "vis_enc": 1e-5,
        "bert": 1e-5,
    }
    schedule = instantiate(run.recipe.schedule)
    rates = [schedule(epoch, 0, 1) for epoch in range(run.recipe.epochs)]
    assert rates == pytest.approx([1.0] * 60 + [0.1] * 30)
    optimizer = instantiate(run.recipe.optimizer)([torch.zeros(1)])
    assert optimizer.defaults["weight_decay"] == 1e-4 and type(optimizer) is torch.optim.AdamW
    assert run.recipe.clip_norm == 0.1 and run.recipe.drop_last and run.recipe.batch_size == 16
    assert run.recipe.sampling == "expression" and method.freeze_epochs == 10
    assert method.image_size == 640 and method.text_shape == (40, 30522)


@pytest.mark.parametrize("dataset", EMBEDDED)
def test_small_preset_trains(dataset):
    run = config(dataset)
    method = instantiate(run.method)
    size = sum(value.numel() for value in method.state_dict().values())
    assert 2 * size < 3e6, "shipped as float16 it stays below 3 MB"
    batch = synthetic_batch(method, 2)
    method(batch)["total"].backward()
    assert all(value.grad is not None for group in method.param_groups(1.0) for value in group["params"])
    ids, pad = method.tokenize(["the red ball on the far left"])
    assert ids.max() < method.text_shape[1] and not pad[0, :8].any() and pad[0, 9:].all()


def test_pretraining_and_ablation():
    """The shipped weights are those of the preset; the four runs of the ablation differ and are named apart."""
    pretrain = config("refshapes", "recipe=stage/resvg-pretrain-refshapes")
    assert pretrain.recipe.train_split == "pretrain" and pretrain.weights is None and pretrain.method.priors is None
    names = set()
    for priors in ("null", "sketch"):
        for extra in ("null", "resvg-scenes"):
            run = config(
                "refshapes",
                "recipe=stage/resvg-ablation-refshapes",
                f"method.priors={priors}",
                f"recipe.extra_train={extra}",
            )
            assert run.weights == "shipped" and run.recipe.train_split == "train"
            names.add(run.run_dir)
    assert len(names) == 4
    small, ours = instantiate(pretrain.method), instantiate(run.method)
    assert {k: v.shape for k, v in small.state_dict().items()} == {k: v.shape for k, v in ours.state_dict().items()}


def test_where_priors_lie_is_no_difference_between_runs():
    """Another path to the same files is the same experiment; none at all, or sketches, are not."""

    def identity(**options):
        return method_identity({"_target_": "vgbench.methods.resvg.ResVG", "image_size": 640, **options})

    here = identity(priors="/home/me/priors.parquet", tokenizer="/home/me/vocab.txt")
    assert here == identity(priors=["/data/a.parquet", "/data/b.parquet"], tokenizer=None)
    assert here != identity(priors=None) and here != identity(priors="sketch")
    assert identity(priors=None) == identity() != identity(priors="sketch")
    assert here["image_size"] == 640 and "tokenizer" not in here
