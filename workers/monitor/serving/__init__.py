"""The web server of the pages: its process and its other addresses."""
