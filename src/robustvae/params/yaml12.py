"""Reading YAML 1.2, as DVC does, with PyYAML, which speaks 1.1."""

import re
from pathlib import Path
from typing import Any

import yaml

from robustvae.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML 1.2, as DVC reads it: 1e-05 is a number, off is a word, 010 is ten."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (its own, not the base's)


def _resolve(kind: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(pattern), [*first, ""])


_resolve("null", r"^(?:~|null|Null|NULL|)$", "~nN")
_resolve("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolve("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789")
_resolve("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789")
_resolve("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+.")
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: _integer(node.value))


def _integer(text: str) -> int:
    return int(text, 0 if text[:2] in ("0o", "0x") else 10)


def parse(text: str) -> Any:
    """The value that a piece of YAML stands for."""
    return yaml.load(text, _Loader)


def read(path: str | Path = "params.yaml") -> dict[str, Any]:
    """The mapping that a YAML file holds, read as YAML 1.2."""
    try:
        content = parse(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        own = Path(path).name == "params.yaml"
        way_out = "run in the project's folder" if own else "name a YAML file that is there"
        raise UserError(f"{path}: cannot be read ({error.strerror}); {way_out}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: must hold sections such as run, data, model; it holds {content!r}"
        )
    return content
