"""Models of others, each by its own library, behind our own seam. Imported by the benchmark alone."""
