"""The sections of the pages: cards, tables, charts and lists."""
