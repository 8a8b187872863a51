"""The benchmark: our models and others' on the same windows, masks, splits and metrics."""
