"""Warnings that somebody deals with: discovered, filed, dispatched, closed."""
