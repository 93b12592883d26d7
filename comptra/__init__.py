"""Evaluation: translate test sets with LLMs (main.py) and score the translations (comptra.evaluate)."""
