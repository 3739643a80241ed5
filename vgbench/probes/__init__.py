"""Seeded changes of expressions and images with a known effect on the right answer."""
