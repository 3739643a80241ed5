"""A sweep as Ray tasks. hydra-ray-launcher is not kept up (it asks for an old Ray), so this calls Ray itself."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from omegaconf import open_dict

from vgbench.core.errors import require_extra

MODULE = "hydra_plugins.vgbench"  # Hydra takes launchers from modules of such a name only


class RayLauncher(Launcher):
    """A task per point.

    Args:
        address: of a cluster, "auto" for the one that this machine belongs to; None: Ray is started here.
        num_cpus, num_gpus: of a task.

    Raises:
        UserError: if Ray is missing; the message names the extra.
    """

    __module__ = MODULE

    def __init__(self, address: str | None = None, num_cpus: float = 1, num_gpus: float = 0) -> None:
        self.ray = require_extra("ray", "ray", "hydra/launcher=ray")
        self.address, self.needs = address, {"num_cpus": num_cpus, "num_gpus": num_gpus}

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        """What Hydra hands over before a launch."""
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Start all tasks, wait for all."""
        setup_globals()
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        self.ray.init(address=self.address, ignore_reinit_error=True, include_dashboard=False, log_to_driver=True)
        task = self.ray.remote(**self.needs, max_retries=0)(_point)
        state = Singleton.get_state()
        configs = [self._config(list(overrides), initial_job_idx + i) for i, overrides in enumerate(job_overrides)]
        return self.ray.get([task.remote(self.context, self.task, config, state) for config in configs])

    def _config(self, overrides: list[str], number: int) -> Any:
        config = self.context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        return config


def _point(context: Any, task: Any, config: Any, state: Any) -> JobReturn:
    setup_globals()
    Singleton.set_state(state)
    return run_job(
        hydra_context=context,
        task_function=task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def register() -> None:
    """Make ``hydra/launcher=ray`` known to Hydra: as if a plug-in with the module :data:`MODULE` was installed."""
    package = MODULE.partition(".")[0]
    if importlib.util.find_spec(package) is None:  # no launcher is installed
        sys.modules[package] = types.ModuleType(package)
    sys.modules[MODULE] = sys.modules[__name__]
    setattr(importlib.import_module(package), MODULE.partition(".")[2], sys.modules[MODULE])
    Plugins.instance().register(RayLauncher)
