"""Stage 3: fine-tune a model on the pairs."""
