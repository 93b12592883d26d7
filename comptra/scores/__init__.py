"""The systems that are scored, and the metrics that score them."""
