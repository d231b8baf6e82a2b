"""Each source -> arrays on disk: downloads, splits, binarisation."""
