"""A paper's table, cell by cell."""
