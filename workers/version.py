"""Defines the version of Sluice; no other file does."""

VERSION = "0.1.0"
