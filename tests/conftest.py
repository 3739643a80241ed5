"""What several test files share. One thread per process: the processes of pytest-xdist are the parallelism."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest


@pytest.fixture(scope="module")
def few_scenes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """RefShapes in a folder of the test's own: number of images per split, e.g. "train:6,val:4" -> overrides."""

    def overrides(images: str) -> list[str]:
        root = tmp_path_factory.mktemp("refshapes")
        places = [f"dataset.data_root={root}", f"dataset.cache_dir={root}"]
        return ["dataset=refshapes", f"+dataset.images={{{images}}}", *places]

    return overrides


@pytest.fixture(scope="session")
def mutate() -> Callable[[Any, random.Random, Sequence[Any]], Any]:
    """A function that replaces one random node of a JSON value by one of the junk values, or removes it, in place."""

    def mutated(value: Any, generator: random.Random, junk: Sequence[Any]) -> Any:
        if isinstance(value, (dict, list)) and value and generator.random() < 0.85:
            key = generator.choice(list(value) if isinstance(value, dict) else range(len(value)))
            if generator.random() < 0.15:
                del value[key]
            else:
                value[key] = mutated(value[key], generator, junk)
            return value
        return copy.deepcopy(generator.choice(junk))

    return mutated
