"""Parallel data for low-resource machine translation: generation, decontamination, training and what they share."""

__version__ = "0.2.0"
