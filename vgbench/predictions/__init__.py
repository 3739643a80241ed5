"""Predictions: the file between methods and metrics."""
