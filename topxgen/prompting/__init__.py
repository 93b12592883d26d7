"""Machine translation templates and prompt files."""
