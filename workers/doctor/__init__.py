"""The doctor: checks of everything an import stands on, each with its finding and the fix."""
