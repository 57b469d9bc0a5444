"""Who can see the page and act on it: passwords, sessions, login, and the checks on every request."""
