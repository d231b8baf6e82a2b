"""From the file to settings, or every mistake in it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustvae.errors import UserError
from robustvae.params.mistakes import lines
from robustvae.params.rules import broken
from robustvae.params.whole import Params
from robustvae.params.yaml12 import read

DEFAULTS = Path(__file__).with_name("defaults.yaml")  # params.yaml as it comes


def load(path: str | Path = "params.yaml") -> Params:
    """Parse and check the whole file; every mistake becomes one line of a single UserError."""
    return check(read(path), Path(path).name)


def overlay(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`changes` laid over `base`, key by key; `{"loss.df": 3.0}` and nested mappings both work."""
    merged = {key: overlay(v, {}) if isinstance(v, Mapping) else v for key, v in base.items()}
    for key, value in changes.items():
        head, _, rest = str(key).partition(".")
        change = {rest: value} if rest else value
        nested = isinstance(change, Mapping) and isinstance(merged.get(head), dict)
        merged[head] = overlay(merged[head], change) if nested else change
    return merged


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys."""
    if not isinstance(node, Mapping):
        return {prefix: node}
    below = (flatten(value, f"{prefix}.{name}".strip(".")) for name, value in node.items())
    return {key: value for part in below for key, value in part.items()}


def complete(changes: Mapping[str, Any] | str | Path | None = None, **more: Any) -> Params:
    """The defaults with changes: dotted keys, nested mappings, or a YAML file that has some."""
    source = "settings"
    if isinstance(changes, str | Path):
        source, changes = str(changes), read(changes)
    if not isinstance(changes, Mapping | None):
        raise UserError(
            f'settings: must be a mapping such as {{"loss.df": 3.0}} or the path of a YAML file, '
            f"got {type(changes).__name__}"
        )
    return check(overlay(overlay(read(DEFAULTS), changes or {}), more), source)


def check(content: dict[str, Any], source: str = "params.yaml") -> Params:
    """Typed settings from plain values; `source` names them in messages."""

    try:
        settings = Params.model_validate(content)
        found = broken(settings)
    except ValidationError as error:
        found = lines(error, Params)
    if found:
        raise UserError("\n".join(f"{source}: {line}" for line in found))
    return settings


def spellings(content: Mapping[str, Any], settings: Params) -> list[str]:
    """Numbers that DVC's cache of runs would not find again when they are written as usual."""
    typed = flatten(settings.model_dump())
    return [
        f"{key}: write {json.dumps(typed[key])} for {value}; the same number, "
        "but another run to DVC, which trains again where the usual spelling would be in its cache"
        for key, value in flatten(content).items()
        if json.dumps(value) != json.dumps(typed.get(key, value))
    ]
