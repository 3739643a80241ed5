"""Method and batches -> run folder. The only folder that imports Lightning."""
