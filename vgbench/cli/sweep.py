"""What ``-m`` adds to ``run`` and ``eval``: points in one folder, and their table at the end."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vgbench.core.errors import UserError

if TYPE_CHECKING:
    from vgbench.training.sweep import Sweep


@dataclass(frozen=True)
class SweepPoints:
    """Does the points of a sweep, each in its folder. Launchers send it to other processes.

    Attributes:
        sweep: the sweep.
        runs: where run folders go.
        prefix: of the points' names.
    """

    sweep: Sweep
    runs: Path
    prefix: str

    def __call__(self, config: Any, work: Callable[[Any], float]) -> float:
        from hydra.core.hydra_config import HydraConfig

        from vgbench.training.sweep import sweep_point

        base = self.sweep.folder(config, HydraConfig.get().overrides.task, self.prefix)
        return sweep_point(config, base, self.sweep.index(self.runs), work)

    @contextmanager
    def table(self) -> Iterator[None]:
        """At the end, or when points failed: the leaderboard of the points, mean and deviation over seeds."""
        try:
            yield
        finally:
            self._print()

    def _print(self) -> None:
        from vgbench.core.processes import process_rank
        from vgbench.core.terminal import output
        from vgbench.leaderboard.compare import leaderboard
        from vgbench.records.store import find

        index = self.sweep.index(self.runs)
        if process_rank() or not index.is_file():
            return
        points = [Path(line) for line in dict.fromkeys(index.read_text("utf-8").splitlines()) if Path(line).is_dir()]
        done = [folder for folder in points if (folder / "record.json").is_file()]
        if done:
            print()
            output(leaderboard(find(done), seeds=True))
        for folder in points:
            if folder not in done:
                print(f"not finished: {folder}; the same command goes on with it")
        print(f"{len(done)} of {len(points)} points that were begun are done: {', '.join(map(str, done)) or 'none'}")


def sweep_points(
    arguments: Namespace, overrides: Sequence[str], name: str | None, prefix: str | None
) -> SweepPoints | None:
    """What does the points of a sweep; None for a single run, and (``prefix`` None) where no run folders are made.

    Raises:
        UserError: for a name without a sweep, or run folders that are named otherwise.
    """
    if not arguments.multirun or arguments.cfg or prefix is None:
        if name is not None:
            raise UserError(f"sweep={name}: names the folder of a sweep of runs; add -m")
        return None
    from vgbench.bridges import ray
    from vgbench.training.sweep import Sweep

    if any(item.startswith(("run_dir=", "resume=")) for item in overrides):
        raise UserError("a sweep names its run folders and resumes them by itself; leave out run_dir= and resume=")
    ray.register()
    sweep = Sweep.of(overrides, name)
    runs = next((item.partition("=")[2] for item in reversed(overrides) if item.startswith("runs=")), "runs")
    return SweepPoints(sweep, Path(runs.strip("'\"")), prefix)
