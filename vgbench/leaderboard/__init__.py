"""Records -> tables and page."""
