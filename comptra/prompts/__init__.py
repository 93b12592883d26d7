"""The prompts of evaluation, as files for users to edit: methods/, divide/, merge/ and metrics/ beside this file."""

from pathlib import Path

FOLDER = Path(__file__).parent
