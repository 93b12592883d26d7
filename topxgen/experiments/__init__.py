"""Runs of several stages, each a script in a process of its own: described by files, resumed, compared."""
