"""Zero-shot grounding models of Hugging Face transformers, from a local folder: evaluation only."""

from vgbench.methods.hf_grounding.method import FAMILIES, HFGrounding

__all__ = ["FAMILIES", "HFGrounding"]
