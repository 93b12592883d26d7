"""Statistics of generated, published and native data: size, length, diversity, topics, scores."""
