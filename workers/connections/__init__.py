"""How the database and Redis are reached, and what is said when they are not."""
