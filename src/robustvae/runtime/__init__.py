"""Devices, threads, processes, seeds, files that appear whole, progress."""
