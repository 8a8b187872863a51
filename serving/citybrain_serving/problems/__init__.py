"""Where the city is in trouble or soon will be, how much it costs, and why."""
