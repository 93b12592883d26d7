"""Compositional translation (CompTra): divide, translate the phrases, merge."""
