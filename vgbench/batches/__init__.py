"""Annotation table -> batches."""
