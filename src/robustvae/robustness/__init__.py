"""A model x images x metric -> values per image and tables, with errors."""
