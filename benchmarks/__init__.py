"""Measure fleets of real processes against the mock API: the README's figures (benchmarks/README.md)."""
