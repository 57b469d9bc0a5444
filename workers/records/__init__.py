"""The tables and their only writers: runs, items, lanes, cursors, the rows of users."""
