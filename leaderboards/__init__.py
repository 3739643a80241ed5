"""Published numbers and committed, reproducible results."""
