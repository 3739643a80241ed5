"""ALVG: attention-supervised visual grounding on one BEiT-3 encoder."""

from vgbench.methods.alvg.model import ALVG

__all__ = ["ALVG"]
