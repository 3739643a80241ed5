"""Language models behind a server that speaks OpenAI's protocol: evaluation only."""

from vgbench.methods.openai_api.method import OpenAIServer

__all__ = ["OpenAIServer"]
