"""Who may look and act: passwords, sessions, login, and the checks on every request."""
