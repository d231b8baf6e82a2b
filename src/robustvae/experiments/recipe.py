"""A recipe: a small file of parameters laid over params.yaml, as a DVC experiment of its name."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustvae.errors import UserError
from robustvae.params.yaml12 import read


def command(recipe: Path, overrides: Sequence[str], name: str | None, queue: bool) -> list[str]:
    """What DVC is to be called with; UserError where params.yaml has no such key."""
    values, known = flatten(read(recipe)), flatten(read())
    for key in values:
        if key not in known:
            raise UserError(f"{recipe}: {key}: no such setting in params.yaml")
    sets = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    words = [word for override in (*sets, *overrides) for word in ("-S", override)]
    return ["dvc", "exp", "run", "-n", name or recipe.stem, *words, *(["--queue"] * queue)]


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    if not isinstance(node, dict):
        return {prefix: node}
    below = (flatten(value, f"{prefix}.{name}".strip(".")) for name, value in node.items())
    return {key: value for part in below for key, value in part.items()}
