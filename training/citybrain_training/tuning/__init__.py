"""Tuning: a search for a better configuration by Optuna, on validation windows only."""
