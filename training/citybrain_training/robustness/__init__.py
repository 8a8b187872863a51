"""When the world breaks: forecasts from feeds that are dead, stuck, late or were never there."""
