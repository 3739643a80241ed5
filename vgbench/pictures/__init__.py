"""Predictions and curves as pictures."""
