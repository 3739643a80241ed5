"""Hydra configuration of the suite."""
