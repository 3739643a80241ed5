"""Where the authors of BEiT-3 keep its vocabulary and weights: https://github.com/microsoft/unilm/tree/master/beit3."""

from __future__ import annotations

from vgbench.core.published import PublishedFile

_STORE = "https://conversationhub.blob.core.windows.net/beit-share-public/beit3"

VOCABULARY = PublishedFile("beit3.spm", "vocabulary", "method.tokenizer", f"{_STORE}/sentencepiece/beit3.spm")


def encoder(name: str, use: str) -> PublishedFile:
    """A checkpoint of the encoder alone, at 224 pixels; other sizes are adapted when it is loaded."""
    return PublishedFile(f"{name}.pth", use, "pretrained", f"{_STORE}/pretraining/{name}.pth")
