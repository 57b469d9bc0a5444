"""Where the README's figures come from: fleets of real processes against the mock API (benchmarks/README.md)."""
