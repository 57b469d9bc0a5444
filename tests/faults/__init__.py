"""The seeded fault run: fleets of real processes, and a schedule of what is done to them. `python tests/faults`."""
