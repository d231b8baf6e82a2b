"""Corruptions: (images, severity, generator) -> corrupted images; `catalogue` lists them."""

from robustvae.corruptions.apply import CHUNK, LAYOUTS, corrupt_images, resolve, stream
from robustvae.corruptions.catalogue import CORRUPTIONS, EXTRAS, FIFTEEN
from robustvae.corruptions.corruption import SMALLEST, Corruption

__all__ = [
    "CHUNK", "CORRUPTIONS", "EXTRAS", "FIFTEEN", "LAYOUTS", "SMALLEST",
    "Corruption", "corrupt_images", "resolve", "stream",
]  # fmt: skip
