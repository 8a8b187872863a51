"""Weather forecasts that are handed in, for the models that read them."""
