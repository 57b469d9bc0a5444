"""Schedules: when runs start automatically, by which rules, and the calendar of past and future runs."""
