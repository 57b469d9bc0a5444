"""What `python -m workers NAME` keeps running: worker, scheduler, embedded Redis, and their supervision."""
