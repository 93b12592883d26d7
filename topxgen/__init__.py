"""Topic-driven generation of parallel data (TopXGen): from topics to scored sentence pairs."""
