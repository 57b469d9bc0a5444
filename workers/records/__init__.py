"""Sluice's tables, and the only code that writes to them: runs, items, lanes, cursors; and to the rows of users."""
