"""Opens connections to the database and to Redis, classifies their errors, and reports outages with the repair."""
