"""Prepares text for logs, pages and files: durations and errors in words, safe characters, hidden secrets."""
