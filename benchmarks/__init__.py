"""Speed and memory against the libraries one would use instead: ``python -m benchmarks``."""
