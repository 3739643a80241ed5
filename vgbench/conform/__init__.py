"""Our numbers against those of the authors' code."""
