"""The read side: rows of the tables turned into plain values that pages and commands show."""
