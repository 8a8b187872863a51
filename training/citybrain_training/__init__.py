"""Fit, evaluate, calibrate, export: from a City to a Bundle."""
