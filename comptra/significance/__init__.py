"""What the scores of one test set show of its systems: intervals, p-values, top clusters, several seeds, several languages."""
