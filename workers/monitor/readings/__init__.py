"""What a page reads, once for all open browsers, or why it cannot be read."""
