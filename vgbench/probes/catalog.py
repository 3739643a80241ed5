"""Probes by name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vgbench.core.errors import UserError
from vgbench.core.registry import probes
from vgbench.probes.base import Probe

_SPEC = re.compile(r"(?P<name>[\w+.-]+)(?::(?P<kind>[\w+.-]+))?(?:@(?P<level>\d+))?")

# What is asked where no probe is named: something of everything, without severities and kinds that cost the most.
USUAL = (
    *("mirror", "swap", "words", "nothing", "one_word", "distractors", "cover_others", "cover_target@5"),
    *("image:gaussian_noise@3", "image:gaussian_blur@3", "image:jpeg_compression@3", "image:pixelate@3"),
)


def probe_class(name: str) -> type[Probe]:
    """The class of a registered probe; raises UserError if there is none."""
    return probes.load(name)


def parse(spec: str) -> list[Probe]:
    """The probes that a text names: one (``words:typos``, ``image:gaussian_blur@3``), all severities of a kind
    (``image:gaussian_blur``), or all kinds (``words``).

    Raises:
        UserError: if there is no such probe, kind or severity.
    """
    match = _SPEC.fullmatch(spec.strip())
    if match is None:
        raise UserError(f"probe {spec!r}: write NAME, NAME:KIND or NAME:KIND@SEVERITY, e.g. words:typos")
    cls = probe_class(match["name"])
    kinds = [match["kind"]] if match["kind"] or "" in cls.kinds else list(cls.kinds)
    if match["level"] is not None or not cls.levels:
        levels: list[int | None] = [None if match["level"] is None else int(match["level"])]
    else:
        levels = list(range(1, cls.levels + 1))
    return [cls(kind or "", level) for kind in kinds for level in levels]


def parse_all(specs: Sequence[str]) -> list[Probe]:
    """The probes of several texts, each once; "all" stands for :data:`USUAL`.

    Raises:
        UserError: as :func:`parse`.
    """
    named = [name for spec in specs for name in (USUAL if spec == "all" else (spec,))]
    by_spec = {probe.spec: probe for name in named for probe in parse(name)}
    return list(by_spec.values())
