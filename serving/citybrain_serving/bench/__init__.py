"""``citybrain bench-serving``: the service measured from outside, as callers meet it."""
