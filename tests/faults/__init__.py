"""The seeded fault run: fleets of real processes, and a schedule of faults for each seed. `python -m tests.faults`."""
