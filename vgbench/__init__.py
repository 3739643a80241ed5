"""VGBench: train, evaluate and compare visual-grounding methods under one roof."""

__version__ = "0.1.0"
