"""Training: a model and images -> a trained model and its history."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustvae.training.failure import replay
    from robustvae.training.fitting import fit, warnings, write_history
    from robustvae.training.schedule import best_epoch

__all__ = ["best_epoch", "fit", "replay", "warnings", "write_history"]


def __getattr__(name: str) -> Any:
    """What needs torch, which the names of the objectives do not."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from robustvae.training import failure, fitting, schedule

    homes = {"best_epoch": schedule, "replay": failure}
    return getattr(homes.get(name, fitting), name)
