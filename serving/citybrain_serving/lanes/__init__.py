"""Readings of single lanes, and the reading of their road that they make."""
