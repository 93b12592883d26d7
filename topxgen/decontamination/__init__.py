"""Stage 2: drop what overlaps an evaluation set."""
