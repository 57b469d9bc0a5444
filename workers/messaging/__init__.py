"""How processes communicate through Redis: the message broker, heartbeats, notices and recent errors."""
