"""A recipe: a small file of parameters laid over params.yaml, as a DVC experiment of its name."""

import json
from collections.abc import Sequence
from pathlib import Path

from robustvae.errors import UserError
from robustvae.params.loading import flatten
from robustvae.params.yaml12 import read


def command(recipe: Path, overrides: Sequence[str], name: str | None, queue: bool) -> list[str]:
    """What DVC is to be called with; UserError where params.yaml has no such key."""
    values, known = flatten(read(recipe)), flatten(read())
    for key in values:
        if key not in known:
            raise UserError(f"{recipe}: {key}: no such setting in params.yaml")
        if isinstance(known[key], float) and isinstance(values[key], int):
            values[key] = float(values[key])  # as DVC's cache of runs knows it
    sets = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    words = [word for override in (*sets, *overrides) for word in ("-S", override)]
    return ["dvc", "exp", "run", "-n", name or recipe.stem, *words, *(["--queue"] * queue)]
