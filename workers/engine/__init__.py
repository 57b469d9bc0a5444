"""The work: what a message makes a worker do with a run, its list, its items and its end."""
