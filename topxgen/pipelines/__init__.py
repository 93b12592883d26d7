"""What differs between the ways of asking for paragraphs; `datagen.py` picks one by name."""
