"""Files on disk -> annotation table."""
