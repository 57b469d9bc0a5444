"""The only way a run begins or changes course."""
