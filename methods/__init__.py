"""The methods of the suite, one folder each."""
