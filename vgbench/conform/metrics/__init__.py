"""The numbers of other people's evaluators, reproduced by our metric classes (cases ``metrics-*``)."""
