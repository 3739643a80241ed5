"""VG-LAW (Su et al., CVPR 2023): language-adaptive weight generation for boxes and masks."""

from vgbench.methods.vglaw.method import VGLAW

__all__ = ["VGLAW"]
