"""Stage 1: topics to scored sentence pairs."""
