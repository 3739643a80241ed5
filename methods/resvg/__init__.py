"""ResVG (Zheng et al., ACM MM 2024): a semantic prior and relation-sensitive training data for one-box grounding."""

from vgbench.methods.resvg.method import ResVG

__all__ = ["ResVG"]
