"""Actors and the work behind their messages: read lists, fetch details, commit, retry, finalize, re-send messages."""
