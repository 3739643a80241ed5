"""The recipes say what the tables of the authors' configurations say, and every one of them composes."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_module
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from vgbench.config.compose import compose as compose_run
from vgbench.config.compose import recipes
from vgbench.method import GroundingMethod
from vgbench.methods.alvg import ALVG
from vgbench.methods.simvg import SimVG

FAMILY = ("alvg-", "alvg_large-", "simvg-", "simvg_large-")


def composed(*overrides: str):
    return compose_run(overrides)


def constructor_options(cls: type) -> dict[str, Any]:
    """Options and defaults of a method's constructor, those of its base classes included."""
    own = (vars(base)["__init__"] for base in cls.__mro__[: cls.__mro__.index(GroundingMethod)])
    parameters = [parameter for init in own for parameter in inspect.signature(init).parameters.values()]
    return {p.name: p.default for p in parameters if p.name not in ("self", "network") and p.kind is not p.VAR_KEYWORD}


def facts(config) -> tuple:
    """(lr, batch, epochs, warm-up, milestones, ema)."""
    recipe = config.recipe
    schedule = instantiate(recipe.schedule)
    return (recipe.lr, recipe.batch_size, recipe.epochs, schedule.warmup_epochs, list(schedule.milestones), recipe.ema)


# method | datasets | recipe (-: the pair's own; {d}: the dataset) | lr batch epochs warm-up milestones EMA | options
TABLE = """
alvg | refcoco refcocog | - | 5e-4 32 30 3 25 - | masks=true score_attention_weight=40 num_queries=1 enhance=true
alvg | refcoco+ | - | 5e-4 32 30 3 25 - | masks=true score_attention_weight=16 decoder_attention_weight=1
alvg | referit flickr30k | - | 5e-4 32 30 3 25 - | masks=false score_attention_weight=40
alvg | grefcoco | - | 5e-4 32 250 3 225 - | num_queries=10 score_attention_weight=0 decoder_attention_weight=0
alvg_large | refcoco refcoco+ refcocog | - | 5e-4 4 30 3 21,27 - | masks=true score_attention_weight=32 drop_path=0
alvg_large | referit | - | 5e-4 4 30 3 21,27 - | masks=false score_attention_weight=32 encoder_layers=24
alvg_large | flickr30k | - | 5e-4 4 30 3 25 - | masks=false score_attention_weight=32
alvg_large | cocoall | - | 5e-4 8 30 3 21,27 - | masks=true score_attention_weight=32
alvg_large | mixed | - | 5e-4 4 30 3 21,27 - | masks=false score_attention_weight=32
alvg | cocoall | - | 5e-4 32 30 3 21,27 - | masks=false enhance=false image_size=512 score_attention_weight=0
alvg | mixed | - | 5e-4 32 30 3 21,27 - | masks=false enhance=false image_size=640 decoder_attention_weight=0
alvg_large | refcoco refcoco+ refcocog | stage/alvg_large-finetune_cocoall-{d} | 2e-4 4 10 3 8 - | masks=true
alvg | refcoco | stage/alvg-finetune_cocoall-{d} | 2e-4 32 10 3 8 - | jitter=true masks=false enhance=false
alvg | refcoco+ refcocog | stage/alvg-finetune_cocoall-{d} | 1e-4 32 10 3 8 - | jitter=true masks=false
alvg | refcoco refcoco+ refcocog | stage/alvg-finetune_mixed-{d} | 1e-4 32 10 3 8 - | jitter=true enhance=false
alvg | refcoco refcoco+ refcocog | stage/alvg-distill_cocoall-{d} | 3e-4 32 20 3 15 - | jitter=true masks=false
alvg | refcoco refcoco+ refcocog | stage/alvg-distill_mixed-{d} | 3e-4 32 15 3 10 - | jitter=true masks=false
simvg | refcoco refcoco+ refcocog | - | 5e-4 32 30 3 25 - | token_weight=2 distill_weight=1 jitter=true
simvg | referit flickr30k | - | 5e-4 32 30 3 25 - | token_weight=2 distill_weight=1 jitter=true
simvg | refcoco refcoco+ refcocog | stage/simvg-stage1-{d} | 5e-4 16 30 3 25 0.999 | token_weight=0 distill_weight=0
simvg | referit flickr30k | stage/simvg-stage1-{d} | 5e-4 32 30 3 25 - | token_weight=0 distill_weight=0
simvg | refcoco refcoco+ refcocog | stage/simvg-stage2-{d} | 3e-4 32 20 3 15 - | token_weight=2 distill_weight=1
simvg | referit flickr30k | stage/simvg-stage2-{d} | 3e-4 32 20 3 15 - | token_weight=2 distill_weight=1
simvg | grefcoco | - | 5e-4 32 200 3 180 - | num_queries=10 jitter=false token_weight=2 distill_weight=1
simvg | grefcoco | stage/simvg-stage1-{d} | 5e-4 32 200 3 180 - | num_queries=10 token_weight=0 jitter=false
simvg | grefcoco | stage/simvg-stage2-{d} | 5e-4 32 100 3 90 - | num_queries=10 token_weight=2 jitter=false
simvg_large | refcoco refcoco+ refcocog flickr30k | - | 5e-4 4 30 3 25 - | token_weight=1 distill_weight=0.4
simvg_large | referit | - | 5e-4 4 30 3 25 - | token_weight=2 distill_weight=1 drop_path=0
simvg_large | refcocog | simvg_large-refcocog-google | 5e-4 4 30 0 25 - | token_weight=1 distill_weight=0.4
simvg_large | refcoco refcoco+ refcocog | stage/simvg_large-stage1-{d} | 5e-4 4 30 3 21,27 - | token_weight=0
simvg_large | referit flickr30k | stage/simvg_large-stage1-{d} | 5e-4 4 30 3 21,27 - | token_weight=0
simvg_large | refcoco refcoco+ refcocog flickr30k | stage/simvg_large-stage2-{d} | 1e-4 4 10 0 7 - | token_weight=1
simvg_large | referit | stage/simvg_large-stage2-{d} | 1e-4 4 10 0 7 - | token_weight=2 distill_weight=1
simvg | mixed | - | 5e-4 32 30 3 21,27 - | token_weight=0 jitter=false image_size=640
simvg | cocoall | - | 5e-4 32 30 3 21,27 - | token_weight=0 jitter=false image_size=512
simvg | refcoco | stage/simvg-finetune_cocoall-{d} | 2e-4 32 10 3 8 - | token_weight=0 jitter=true
simvg | refcoco+ refcocog | stage/simvg-finetune_cocoall-{d} | 1e-4 32 10 3 8 - | token_weight=0 jitter=true
simvg | refcoco refcoco+ refcocog | stage/simvg-finetune_mixed-{d} | 1e-4 32 10 3 8 - | token_weight=0 jitter=true
simvg | refcoco refcoco+ refcocog | stage/simvg-distill_mixed-{d} | 3e-4 32 15 3 10 - | token_weight=2 distill_weight=1
simvg | refcoco refcoco+ refcocog | stage/simvg-distill_cocoall-{d} | 3e-4 32 20 3 15 - | distill_weight=0.4
"""


def rows():
    for line in TABLE.strip().splitlines():
        method, datasets, recipe, numbers, options = (part.strip() for part in line.split("|"))
        lr, batch, epochs, warmup, milestones, ema = numbers.split()
        wanted = (
            float(lr),
            int(batch),
            int(epochs),
            int(warmup),
            [int(milestone) for milestone in milestones.split(",")],
            None if ema == "-" else float(ema),
        )
        values = {name: yaml.safe_load(value) for name, value in (option.split("=") for option in options.split())}
        for dataset in datasets.split():
            chosen = f"{method}-{dataset}" if recipe == "-" else recipe.format(d=dataset)
            yield pytest.param(method, dataset, chosen, wanted, values, id=chosen)


@pytest.mark.parametrize(("method", "dataset", "recipe", "wanted", "options"), list(rows()))
def test_recipe(method, dataset, recipe, wanted, options):
    own = recipe == f"{method}-{dataset}"
    config = composed(f"method={method}", f"dataset={dataset}", *([] if own else [f"recipe={recipe}"]))
    assert facts(config) == wanted
    assert {name: config.method[name] for name in options} == options
    assert set(config.method) - {"_target_"} <= set(constructor_options(get_class(config.method._target_)))
    common = OmegaConf.to_container(config.recipe)
    assert common["clip_norm"] == 0.15 and common["seed"] == 6666 and common["sampling"] == "object"
    assert common["group_by_orientation"] is True
    optimizer = instantiate(config.recipe.optimizer)([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.Adam)
    chosen = optimizer.defaults
    assert (chosen["eps"], chosen["weight_decay"], chosen["amsgrad"]) == (1e-9, 0.0, True)
    assert tuple(chosen["betas"]) == (0.9, 0.98)


def test_every_recipe_is_in_the_table():
    listed = {row.values[2] for row in rows()}
    official = {name for name in recipes() if "shapes" not in name and name.removeprefix("stage/").startswith(FAMILY)}
    assert official == listed


def test_the_defaults_of_the_configuration_are_those_of_the_classes():
    for name, cls in (("alvg", ALVG), ("simvg", SimVG)):
        with initialize_config_module("vgbench.configs", version_base=None):
            node = compose(f"method/{name}").method
        for option, default in constructor_options(cls).items():
            value = node[option]
            value = tuple(value) if OmegaConf.is_list(value) else value
            assert value == default, (name, option)
