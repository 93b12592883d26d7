"""One file for each section: collect(Run, Options) -> dict | None."""
