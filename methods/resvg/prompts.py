"""What is drawn for an expression, and from which seed."""

from __future__ import annotations

import hashlib


def prompt(expression: str) -> str:
    """What is drawn for an expression, and the key it is kept under."""
    return expression.lower().strip()


def prompt_seed(text: str, seed: int = 0) -> int:
    """A seed from the text alone: the same on every machine and in every order."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{text}".encode()).digest()[:4], "big")
