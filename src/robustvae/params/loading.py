"""From the file to settings, or every mistake in it."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from robustvae.errors import UserError
from robustvae.params.mistakes import lines
from robustvae.params.rules import broken
from robustvae.params.whole import Params
from robustvae.params.yaml12 import read


def load(path: str | Path = "params.yaml") -> Params:
    """Parse and check the whole file; every mistake becomes one line of a single UserError."""
    return check(read(path), Path(path).name)


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
