"""Retraining as a job: a challenger from new data, a gate that compares it with the champion, and the registry."""
