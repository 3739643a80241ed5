"""Model parts that more than one method is built from."""
