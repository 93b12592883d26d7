"""Does a model translate a test set better than texts just like it? (scripts/probe_contamination.py)"""
