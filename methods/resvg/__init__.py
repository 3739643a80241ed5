"""ResVG (Zheng et al., ACM MM 2024): a semantic prior and relation-sensitive training data for one-box grounding."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vgbench.methods.resvg.method import ResVG

__all__ = ["ResVG"]


def __getattr__(name: str) -> Any:
    if name != "ResVG":
        raise AttributeError(name)
    from vgbench.methods.resvg.method import ResVG  # only now: ``vgbench data --help`` reads this package's actions

    return ResVG
