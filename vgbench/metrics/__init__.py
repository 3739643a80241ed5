"""Metrics: they read predictions and the annotation table, never a model."""
