"""The door for Python: models, data, scores and runs in a few names, all importable from ``vgbench`` itself."""
