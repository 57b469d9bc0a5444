"""Text that leaves the process: durations and errors in words, control characters cleaned, secrets hidden."""
