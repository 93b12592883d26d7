"""Metrics, significance tests and the tables that show them."""
