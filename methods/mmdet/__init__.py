"""Grounding models of MMDetection (MM-Grounding-DINO, GLIP, ...), from a config and a checkpoint: evaluation only."""

from vgbench.methods.mmdet.method import MMDet

__all__ = ["MMDet"]
