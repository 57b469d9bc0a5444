"""Reads what the pages show, once for all open browsers, or says why it cannot be read."""
