"""What runs have left on disk: the folders of each stage, their rows, and counts. Nothing here writes or takes a lock."""
