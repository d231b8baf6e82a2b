"""What pydantic found wrong, as one line per mistake for people."""

import re
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from robustvae.errors import did_you_mean
from robustvae.params.yaml12 import parse, shown

Place = tuple[str | int, ...]


def lines(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """One line per mistake; the branches of a union (`auto` or a number) are joined into one."""
    grouped: dict[Place, list[Any]] = {}
    for item in error.errors(include_url=False):
        grouped.setdefault(_place(item["loc"], root), []).append(item)
    said_deeper = {place[:n] for place in grouped for n in range(1, len(place))}
    return [
        _line(place, items, root) for place, items in grouped.items() if place not in said_deeper
    ]


def _place(loc: Place, root: type[BaseModel]) -> Place:
    """The path of keys, without the names of union branches that pydantic adds."""
    place: list[str | int] = []
    node: Any = root
    for step in loc:
        fields = getattr(node, "model_fields", {})
        if isinstance(step, int):
            place.append(step)
        elif step in fields:
            place.append(step)
            node = fields[step].annotation
        elif fields:  # unknown key
            place.append(step)
    return tuple(place)


def _line(place: Place, items: list[Any], root: type[BaseModel]) -> str:
    first, name = items[0], ".".join(map(str, place))
    if first["type"] == "extra_forbidden":
        hint = did_you_mean(str(place[-1]), _fields(place[:-1], root))
        return f"{name}: no such setting{hint}"
    if first["type"] == "invalid_key":
        return f"{'.'.join(map(str, place[:-1])) or 'params'}: {place[-1]} is no key; use a word"
    if first["type"] == "plugin":
        return f"{name}: {first['msg']}"
    if first["type"] == "missing":
        return f"{name}: missing; add it"
    if first["type"] == "value_error":
        text = str(first["ctx"]["error"])
        return f"{name}.{text}" if name else text
    value = first["input"]
    literals = [w for i in items if i["type"] == "literal_error" for w in _words(i)]
    if literals and isinstance(value, str) and all(isinstance(w, str) for w in literals):
        more = [_phrase(i) for i in items if i["type"] != "literal_error"]
        more += ["null"] if _nullable(place, root) else []
        allowed = ", ".join([*map(str, literals), *dict.fromkeys(more)])
        return f"{name}: unknown {shown(value)}{did_you_mean(value, literals)}, one of {allowed}"
    phrases = list(dict.fromkeys(_phrase(item) for item in items))
    if _nullable(place, root):
        phrases.append("null")
    return f"{name}: must be {' or '.join(phrases)}, got {shown(value)}"


_PHRASES = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "none_required": "null",
    "tuple_type": "a list",
    "greater_than": "> {gt:g}",
    "greater_than_equal": ">= {ge:g}",
    "less_than": "< {lt:g}",
    "less_than_equal": "<= {le:g}",
    "too_short": "a list of at least {min_length}",
}


def _phrase(item: Any) -> str:
    if item["type"] == "literal_error":
        return " or ".join(map(str, _words(item)))
    if item["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "a section with keys"
    return str(_PHRASES.get(item["type"], item["msg"])).format(**item.get("ctx", {}))


def _words(item: Any) -> list[Any]:
    """The alternatives of a Literal, from the text `'a', 'b' or 'c'`."""
    return [parse(word) for word in re.split(r", | or ", item["ctx"]["expected"])]


def _fields(place: Place, root: type[BaseModel]) -> dict[str, Any]:
    """The fields of the section that `place` names, perhaps that of a part's own settings."""
    node: Any = root
    for step in place:
        field = node.model_fields.get(step)
        node = field.annotation if field else node.model_of(step)
    return dict(node.model_fields)


def _nullable(place: Place, root: type[BaseModel]) -> bool:
    key = place[-1] if place else None
    if not isinstance(key, str):
        return False
    found = _fields(place[:-1], root).get(key)
    return found is not None and type(None) in get_args(found.annotation)
