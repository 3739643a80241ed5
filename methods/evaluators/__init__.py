"""What the evaluators of other code compute, reproduced by our metric classes (conformance cases ``metrics-*``)."""
