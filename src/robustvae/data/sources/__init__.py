"""The data sources: how each gets to data/raw, and how it is read from there."""
