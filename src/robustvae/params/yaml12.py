"""Reading YAML 1.2, as DVC does, with PyYAML, which speaks 1.1."""

import re
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import override
from yaml.error import MarkedYAMLError
from yaml.reader import ReaderError

from robustvae.errors import UserError

DEEPEST = 50  # lists and sections within each other; params.yaml has four
TAG = "tag:yaml.org,2002:"
PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")  # dates, sets, bytes are no settings


class _Loader(yaml.SafeLoader):
    """YAML 1.2, as DVC reads it: 1e-05 is a number, off is a word, 010 is ten."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (its own, not the base's)
    yaml_constructors = {  # noqa: RUF012 (as above)
        tag: how
        for tag, how in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.removeprefix(TAG) in PLAIN
    }
    depth = 0

    @override
    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Neither deeper than Python's stack, nor a list that holds itself."""
        self.depth += 1
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if self.depth > DEEPEST:
            raise _fault(f"nested more than {DEEPEST} deep", event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent) and getattr(node, "end_mark", True) is None:
            raise _fault(f"*{event.anchor} stands inside itself", event.start_mark)
        self.depth -= 1
        return node

    @override
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A tag that does not fit its value (`!!int x`) is a fault of that place."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, TypeError) as error:
            kind = node.tag.removeprefix(TAG)
            raise _fault(f"no value of type {kind} ({error})", node.start_mark) from None


def _fault(why: str, mark: Any) -> MarkedYAMLError:
    return MarkedYAMLError(problem=why, problem_mark=mark)


def _resolve(kind: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(f"{TAG}{kind}", re.compile(pattern), [*first, ""])


_resolve("null", r"^(?:~|null|Null|NULL|)$", "~nN")
_resolve("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolve("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789")
_resolve("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789")
_resolve("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", "-+.")
_Loader.add_constructor(f"{TAG}int", lambda _, node: _integer(node.value))


def _integer(text: str) -> int:
    return int(text, 0 if text[:2] in ("0o", "0x") else 10)


def parse(text: str) -> Any:
    """The value that a piece of YAML stands for; yaml.YAMLError where it is none."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except ValueError as error:  # an escape such as "\\U00110000", of no character
        raise _fault(str(error), loader.get_mark()) from None


def read(path: str | Path = "params.yaml") -> dict[str, Any]:
    """The mapping that a YAML file holds, read as YAML 1.2."""
    try:
        written = Path(path).read_bytes()
    except OSError as error:
        own = Path(path).name == "params.yaml"
        way_out = "run in the project's folder" if own else "name a YAML file that is there"
        raise UserError(f"{path}: cannot be read ({error.strerror}); {way_out}") from None
    try:
        content = parse(written.decode())
    except UnicodeDecodeError as error:
        where = _place(written[: error.start].decode())
        raise UserError(f"{path}: {where}: not UTF-8 text; save the file as UTF-8") from None
    except yaml.YAMLError as error:
        where, why = _found(error, written.decode())
        raise UserError(f"{path}: {where}: not valid YAML: {why}; correct it there") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: must hold sections such as run, data, model; it holds {shown(content)}"
        )
    return content


def shown(value: Any) -> str:
    """A value as it is written, its middle left out where it is long."""
    words = {True: "true", False: "false", None: "null"}
    try:
        text = words[value] if value is None or isinstance(value, bool) else repr(value)
    except ValueError:  # more digits than Python writes
        text = "a number of thousands of digits"
    return text if len(text) <= 200 else f"{text[:100]} ... {text[-50:]}"


def _found(error: yaml.YAMLError, text: str) -> tuple[str, str]:
    """Place of a fault, and the fault in one line."""
    if isinstance(error, ReaderError):
        return _place(text[: error.position]), f"unacceptable character #x{error.character:04x}"
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    why = [getattr(error, name, None) for name in ("context", "problem")]
    where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "line 1"
    return where, " ".join(", ".join(filter(None, why)).split())


def _place(before: str) -> str:
    """Line and column of what comes after this text."""
    lines = before.split("\n")
    return f"line {len(lines)}, column {len(lines[-1]) + 1}"
