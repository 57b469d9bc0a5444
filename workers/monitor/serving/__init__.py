"""The web server of the pages: its process, and its routes beside the pages."""
