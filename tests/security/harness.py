"""The fuzz suite: files of every kind are damaged at random, or made by somebody hostile, and read.

A door is a way by which files of others get into the suite. A case is right if what reads the file reads it, or says
in one line what is wrong: no other exception, no 20 seconds, no two gigabytes, nothing executed, nothing written
elsewhere.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.security.mutation import damage
from vgbench.core.errors import UserError
from vgbench.core.lines import one_line
from vgbench.data.checks import BadSample

SECONDS, BYTES = 20, 2 << 30  # of a case; the seconds are the processor's, and five times as many by the clock
CANARY = "EXECUTED"  # what the hostile values make when they run
SECRET = "PRIVATE KEY OF THE MAINTAINER"


class Hang(BaseException):
    """A case took longer than it may."""


@dataclass(frozen=True)
class Door:
    """A way into the suite.

    Attributes:
        name: for messages.
        write: makes whole files in an empty folder.
        use: reads them, with that folder as the working directory; a text that it returns must not show secrets.
        damage: changes one of the files, and says which.
        few: cases in the default suite; fewer where each takes long.
        same: whether ``use`` must give the same as for the whole files where it gives anything: nothing lies.
    """

    name: str
    write: Callable[[Path], object]
    use: Callable[[Path], Any]
    damage: Callable[[Path, random.Random], str] = damage
    same: bool = False
    few: int = 14  # cases in the default suite


@dataclass
class Report:
    """What became of the cases of a door: counts, and a line for each that is wrong."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    slowest: float = 0.0
    memory: int = 0


@contextmanager
def deadline() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang(f"more than {SECONDS} s")

    timers = {signal.ITIMER_PROF: (signal.SIGPROF, SECONDS), signal.ITIMER_REAL: (signal.SIGALRM, 5 * SECONDS)}
    before = {number: signal.signal(number, ring) for number, _ in timers.values()}
    for timer, (_, seconds) in timers.items():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def peak() -> int:
    """The most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fuzz(door: Door, folder: Path, seeds: range) -> Report:
    """Damage the files of a door once per seed, and read them."""
    report = Report()
    whole, outside = folder / "whole", folder / "outside"
    whole.mkdir(parents=True)
    outside.mkdir()
    (outside / "secret.txt").write_text(SECRET)
    door.write(whole)
    first = folder / "first"
    shutil.copytree(whole, first, symlinks=True)
    os.chdir(first)
    expected = door.use(first)  # what is whole is read
    for seed in seeds:
        place = folder / f"case{seed}"
        shutil.copytree(whole, place, symlinks=True)
        generator = random.Random(f"{door.name} {seed}")
        what = door.damage(place, generator)
        os.chdir(place)
        _one(door, place, f"{door.name} {seed} ({what})", expected, report)
        os.chdir(folder)
        if list(folder.rglob(CANARY)):
            report.failures.append(f"{door.name} {seed} ({what}): something was executed")
            for path in folder.rglob(CANARY):
                path.unlink()
        if [path.name for path in outside.iterdir()] != ["secret.txt"]:
            report.failures.append(f"{door.name} {seed} ({what}): wrote outside its folder")
        shutil.rmtree(place, ignore_errors=True)
    return report


def _one(door: Door, place: Path, title: str, expected: Any, report: Report) -> None:
    start, before = time.process_time(), peak()
    try:
        with deadline():
            value = door.use(place)
        if door.same and value != expected:
            report.failures.append(f"{title}: read as something else")
        if isinstance(value, str) and SECRET in value:
            report.failures.append(f"{title}: a file outside was shown")
        report.outcomes["read"] += 1
    except (UserError, BadSample) as error:
        report.outcomes["refused"] += 1
        text = one_line(error)  # as the command line prints it
        if not text:
            report.failures.append(f"{title}: not one line: {text[:200]!r}")
        if SECRET in text:
            report.failures.append(f"{title}: a file outside was shown")
    except SystemExit as error:  # argparse
        report.outcomes["refused"] += 1
        if error.code not in (0, 2):
            report.failures.append(f"{title}: exit {error.code}")
    except (Exception, Hang) as error:
        trace, places = error.__traceback__, []
        while trace is not None:
            places.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
            trace = trace.tb_next
        report.failures.append(f"{title}: {type(error).__name__}: {str(error)[:200]!r} at {' '.join(places[-4:])}")
    seconds, memory = time.process_time() - start, peak() - before
    report.slowest, report.memory = max(report.slowest, seconds), max(report.memory, memory)
    if memory > BYTES:
        report.failures.append(f"{title}: took {memory >> 20} MiB")
