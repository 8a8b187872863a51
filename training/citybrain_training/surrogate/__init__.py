"""Training of the surrogate on simulated interventions, and what it is measured against."""
