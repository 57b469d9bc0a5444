"""The pages, a file for each, and the frame that they share."""
