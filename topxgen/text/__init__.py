"""Languages, language identification, words, sentences and near-duplicate detection."""
