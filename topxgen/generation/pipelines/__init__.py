"""Generation pipelines, one file each."""
