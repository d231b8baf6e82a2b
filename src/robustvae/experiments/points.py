"""The points of a sweep: every combination of some parameters."""

import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from robustvae.errors import UserError


@dataclass(frozen=True)
class Point:
    """One experiment; `name` follows from `overrides` and is its identity."""

    name: str
    overrides: tuple[str, ...]


def expand(words: Sequence[str]) -> list[Point]:
    """The points of KEY=VALUES in Hydra's grammar: 0,3,5 and range(0,5) sweep, others are fixed."""
    try:
        parsed = OverridesParser.create().parse_overrides(list(words))
        choices = [_choices(override) for override in parsed]
    except HydraException as error:
        raise UserError(f"-S: {str(error).splitlines()[0]}; write KEY=VALUE[,VALUE...]") from None
    names = {_name(pairs): pairs for pairs in itertools.product(*choices)}
    return [Point(name, tuple(f"{k}={v}" for k, v in pairs)) for name, pairs in names.items()]


def _choices(override: Override) -> list[tuple[str, str]]:
    key, sweeps = override.get_key_element(), override.is_sweep_override()
    values = override.sweep_string_iterator() if sweeps else [override.get_value_element_as_str()]
    return [(key, value) for value in values]


def _name(pairs: Sequence[tuple[str, str]]) -> str:
    """For people, and a digest of every key and value, in any order and spelling of numbers."""
    equal = sorted((key, _plain(value)) for key, value in pairs)
    shown = "_".join(f"{key.rpartition('.')[2]}-{value}" for key, value in equal)
    safe = re.sub(r"[^A-Za-z0-9._-]+|\.\.+", "-", shown)[:80]
    return f"{safe}_{hashlib.sha256(json.dumps(equal).encode()).hexdigest()[:8]}"


def _plain(value: str) -> str:
    try:
        number = float(value)
    except ValueError:
        return value
    return repr(int(number) if number.is_integer() else number)
