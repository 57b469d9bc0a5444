"""The message broker, and what processes say to each other through Redis."""
