"""How robust is a variational autoencoder, and which divergence makes it so?"""

from typing import Any

from robustvae.runtime.version import VERSION as __version__

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    """`robustvae.load`, without importing torch before it is called for."""
    if name == "load":
        from robustvae.api import load

        return load
    raise AttributeError(f"module 'robustvae' has no attribute {name!r}")
