"""SimVG: decoupled multi-modal fusion in BEiT-3, a decoder branch and a token branch distilled from it."""

from vgbench.methods.simvg.method import SimVG

__all__ = ["SimVG"]
