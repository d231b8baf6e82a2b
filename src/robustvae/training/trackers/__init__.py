"""Where a training may be followed besides DVC: told its settings once, and every epoch."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from robustvae.errors import UserError
from robustvae.params import flatten
from robustvae.training.schedule import Row
from robustvae.training.trackers import mlflow, tensorboard

TRACKERS = {"tensorboard": tensorboard.tracked, "mlflow": mlflow.tracked}


def tracked(
    name: str, folder: Path, run: str, settings: Mapping[str, Any]
) -> AbstractContextManager[Callable[[Row], None]]:
    """Inside, what to hand each epoch to; `name`: none, or the package of one of TRACKERS."""
    if name == "none":
        return nullcontext(lambda _: None)
    if find_spec(name) is None:
        raise UserError(
            f"run.tracker: the package {name} is missing; "
            f"pip install 'robustvae[{name}]', or set run.tracker to none"
        )
    return TRACKERS[name](folder / name, run, flatten(settings))


__all__ = ["TRACKERS", "tracked"]
