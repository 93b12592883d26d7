"""Contamination probe: does a model translate a test set better than comparable texts? (scripts/probe_contamination.py)"""
