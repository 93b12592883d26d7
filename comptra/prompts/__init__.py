"""Prompts of translation: templates.toml holds them, templates.py fills them in."""
