"""Models, languages and translation: what data generation and evaluation share."""
