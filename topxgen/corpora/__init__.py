"""Evaluation sets, example texts and tables of parallel text."""
