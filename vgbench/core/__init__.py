"""The ground floor: errors, files, registries, the progress bar. Knows nothing of grounding."""
