"""Corruptions: (images, severity, generator) -> corrupted images; `catalogue` lists them."""

from typing import TYPE_CHECKING, Any

from robustvae.corruptions.catalogue import CORRUPTIONS, EXTRAS, FIFTEEN

if TYPE_CHECKING:
    from robustvae.corruptions.apply import CHUNK, LAYOUTS, corrupt_images, resolve, stream
    from robustvae.corruptions.corruption import SMALLEST, Corruption

__all__ = [
    "CHUNK", "CORRUPTIONS", "EXTRAS", "FIFTEEN", "LAYOUTS", "SMALLEST",
    "Corruption", "corrupt_images", "resolve", "stream",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """What needs torch, which the names of the corruptions do not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from robustvae.corruptions import apply, corruption

    return getattr(corruption if hasattr(corruption, name) else apply, name)
