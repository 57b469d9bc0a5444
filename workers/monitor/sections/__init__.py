"""The sections of pages: cards, tables, charts and lists."""
