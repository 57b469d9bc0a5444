"""The pages, a file for each, and the live part that they share."""
