"""What a user writes for an API (models, sources, connectors), and how that API is asked."""
