"""How robust is a variational autoencoder, and what makes it so?"""

from typing import TYPE_CHECKING, Any

from robustvae.runtime.version import VERSION as __version__

if TYPE_CHECKING:
    from robustvae.api import adapters, datasets, testing, transforms
    from robustvae.api.attack import Attacked, attack
    from robustvae.api.compare import Comparison, compare
    from robustvae.api.corrupting import corrupt
    from robustvae.api.evaluate import evaluate
    from robustvae.api.fit import fit
    from robustvae.api.result import Result
    from robustvae.api.screening import Screening, screen
    from robustvae.api.vae import VAE, load
    from robustvae.errors import UserError
    from robustvae.params import register

PUBLIC = {  # name -> where it is, imported when it is first asked for
    "VAE": "api.vae:VAE",
    "Attacked": "api.attack:Attacked",
    "Comparison": "api.compare:Comparison",
    "Result": "api.result:Result",
    "UserError": "errors:UserError",
    "adapters": "api.adapters",
    "attack": "api.attack:attack",
    "compare": "api.compare:compare",
    "corrupt": "api.corrupting:corrupt",
    "datasets": "api.datasets",
    "evaluate": "api.evaluate:evaluate",
    "fit": "api.fit:fit",
    "load": "api.vae:load",
    "register": "params.register",
    "Screening": "api.screening:Screening",
    "screen": "api.screening:screen",
    "testing": "api.testing",
    "transforms": "api.transforms",
}
__all__ = [
    "VAE",
    "Attacked",
    "Comparison",
    "Result",
    "Screening",
    "UserError",
    "__version__",
    "adapters",
    "attack",
    "compare",
    "corrupt",
    "datasets",
    "evaluate",
    "fit",
    "load",
    "register",
    "screen",
    "testing",
    "transforms",
]


def __getattr__(name: str) -> Any:
    """A public name, without importing torch before one is asked for."""
    if name not in PUBLIC:
        raise AttributeError(f"module 'robustvae' has no attribute {name!r}")
    from importlib import import_module

    module, _, attribute = PUBLIC[name].partition(":")
    found = import_module(f"robustvae.{module}")
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return __all__
