"""ALVG: attention-supervised visual grounding on one BEiT-3 encoder."""

from vgbench.methods.alvg.method import ALVG

__all__ = ["ALVG"]
