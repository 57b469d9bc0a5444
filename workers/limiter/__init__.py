"""Permits: how many requests an API allows, shared by all processes in Redis. Usable alone."""
