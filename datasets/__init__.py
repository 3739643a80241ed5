"""The dataset families of the suite."""
