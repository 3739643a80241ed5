"""Vision-language models of Hugging Face transformers, from a local folder: evaluation only."""

from vgbench.methods.vlm.method import VLM

__all__ = ["VLM"]
