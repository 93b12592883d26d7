"""The prompts of evaluation, as files for users to edit: methods/, divide/ and merge/ beside this file."""

from pathlib import Path

FOLDER = Path(__file__).parent
