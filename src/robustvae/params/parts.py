"""The tables of parts, one per kind: the words of params.yaml, and where their code is.

Built-in parts come in by the same door as plug-ins, `register`. A part's code is imported when it
is first used; plug-ins are looked for when a name is asked for that is not built in.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    ConfigDict,
    PlainValidator,
    Strict,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema
from typing_extensions import override

from robustvae.errors import UserError, did_you_mean
from robustvae.params import plugins
from robustvae.params.base import Settings

T = TypeVar("T")
BUILT_IN = "built-in"
# Words that mean something else where a part is named, and so never are one of a plug-in
RESERVED = ("auto", "none", "default", "clean", "headline")
PLAIN = (bool, int, float, str, tuple, type(None))  # what a setting may be
# kind -> the room of its parts, which is their folder in plugins/ too
ROOMS = {
    "dataset": "data", "corruption": "corruptions", "divergence": "models", "likelihood": "models",
    "latent": "models", "net": "models", "robust": "training", "metric": "robustness",
}  # fmt: skip
# What makes of code and facts what a table gives, where that is not the code itself
MADE = {
    "dataset": "robustvae.data.catalogue:made",
    "corruption": "robustvae.corruptions.corruption:made",
    "divergence": "robustvae.models.divergences:made",
}


def _imported(place: str) -> Any:
    module, _, attribute = place.partition(":")
    found = import_module(module)
    return getattr(found, attribute) if attribute else found


@dataclass(frozen=True)
class Part:
    """A part by its name; `settings`: those of its own."""

    kind: str
    name: str
    code: Any  # itself, or where it is: "module:attribute"
    facts: Mapping[str, Any]  # known without importing it
    settings: type[Settings] | None = None
    origin: str = BUILT_IN
    sha256: str | None = None  # of the plug-in that it comes from

    @property
    def itself(self) -> Any:
        """The code, imported."""
        return _imported(self.code) if isinstance(self.code, str) else self.code

    @cached_property
    def made(self) -> Any:
        """What the table gives."""
        made = MADE.get(self.kind)
        return _imported(made)(self.itself, **self.facts) if made else self.itself


class Table(Mapping[str, T]):
    """The parts of a kind by their names, built-in ones first."""

    def __init__(self, kind: str) -> None:
        self.kind, self.room = kind, ROOMS[kind]
        self.parts: dict[str, Part] = {}

    def part(self, name: str) -> Part:
        """What is known of a part without importing it; KeyError where there is none."""
        found = self.built_in().get(name)
        return found if found else self.all()[name]

    def built_in(self) -> dict[str, Part]:
        """What there is without looking for more plug-ins."""
        import_module(f"robustvae.{self.room}.catalogue")
        return self.parts

    def all(self) -> dict[str, Part]:
        """And those; UserError where one fails."""
        self.built_in()
        plugins.bring(self.room)
        return self.parts

    @override
    def __contains__(self, name: object) -> bool:
        return name in self.built_in() or (name not in RESERVED and name in self.all())

    @override
    def __getitem__(self, name: str) -> T:
        made: T = self.part(name).made
        return made

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self.all())

    @override
    def __len__(self) -> int:
        return len(self.all())


TABLES: dict[str, Table[Any]] = {kind: Table(kind) for kind in ROOMS}


def fact(kind: str, name: str, key: str) -> Any:
    """Something that is known of a part without importing it."""
    return TABLES[kind].part(name).facts[key]


def add(part: Part) -> None:
    """Put a part into its table; UserError where its name is taken."""
    table = TABLES[part.kind]
    if part.origin != BUILT_IN:
        table.built_in()
    taken = table.parts.get(part.name)
    if taken and taken.origin != part.origin:
        raise UserError(
            f"{part.kind} {part.name!r}: there is one already ({taken.origin}); choose another name"
        )
    table.parts[part.name] = part


def own_settings(
    keywords: Mapping[str, inspect.Parameter], given: Iterable[str], title: str
) -> type[Settings] | None:
    """A model of a part's keywords that it will not be given otherwise; None: there are none."""
    found: dict[str, Any] = {}
    for name, p in keywords.items():
        if name in given or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        if not isinstance(p.default, PLAIN):
            raise UserError(
                f"{title}: its setting {name} needs a default: a number, text, true, false, "
                "none or a tuple"
            )
        kind = type(p.default) if p.annotation is p.empty else p.annotation
        lists = isinstance(p.default, tuple)  # YAML has lists, not tuples
        found[name] = (Annotated[kind, Strict(False)] if lists else kind, p.default)
    return create_model(title, __base__=Settings, **found) if found else None


def checked(part: Part, values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a part's own as it takes them; UserError where they are none."""
    known = part.settings.model_fields if part.settings else {}
    if not isinstance(values, Mapping):
        raise UserError(f"{part.kind} {part.name!r}: settings must be NAME: VALUE, got {values!r}")
    for name in values:
        if name not in known:
            hint = did_you_mean(name, known) or f", it has {', '.join(known) or 'none of its own'}"
            raise UserError(f"{part.kind} {part.name!r}: no setting {name!r}{hint}")
    try:
        return dict(part.settings.model_validate(dict(values))) if part.settings else {}
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        raise UserError(f"{part.kind} {part.name!r}: {wrong['loc'][0]}: {wrong['msg']}") from None


def foreign(named: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Of parts (kind, name) those that are plug-ins: what a model folder says of them."""
    known = [TABLES[kind].part(name) for kind, name in named if name in TABLES[kind]]
    return [
        {"kind": p.kind, "name": p.name, "origin": p.origin, "sha256": p.sha256}
        for p in known
        if p.origin != BUILT_IN
    ]


class Word:
    """Of a setting that names a part, or is one of some other words."""

    def __init__(self, kind: str, *others: str) -> None:
        self.kind, self.others = kind, others

    def words(self) -> list[str]:
        """All that are allowed."""
        return [*self.others, *(name for name in TABLES[self.kind] if name not in self.others)]

    def check(self, value: Any) -> str:
        """The word itself, or a mistake as pydantic has it for a Literal."""
        try:
            if isinstance(value, str) and (value in self.others or value in TABLES[self.kind]):
                return value
            *rest, last = (repr(word) for word in self.words())
        except UserError as error:  # of a plug-in
            raise PydanticCustomError("plugin", "{why}", {"why": str(error)}) from None
        expected = f"{', '.join(rest)} or {last}" if rest else last
        raise PydanticCustomError("literal_error", "{expected}", {"expected": expected})

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, _schema: Any, _handler: Any) -> dict[str, Any]:
        return {"enum": self.words(), "type": "string"}


class Chosen(str):
    """The name of a part in a list, and settings of its own."""

    own: dict[str, Any]


class Item(Word):
    """In a list: a word, or {word: settings of its own}."""

    @override
    def check(self, value: Any) -> Chosen:
        if not (isinstance(value, dict) and len(value) == 1):
            value = {super().check(value): {}}
        ((name, given),) = value.items()
        chosen, table = Chosen(name), TABLES[self.kind]
        try:
            if name not in table:
                raise UserError(f"no {self.kind} {name!r}{did_you_mean(name, table)}")
            chosen.own = checked(table.part(name), given)
        except UserError as error:
            raise PydanticCustomError("own", "{why}", {"why": str(error)}) from None
        return chosen

    @override
    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        plain = super().__get_pydantic_json_schema__(schema, handler)
        models = {name: TABLES[self.kind].part(name).settings for name in self.words()}
        own = {name: m.model_json_schema() for name, m in models.items() if m}
        if not own:
            return plain
        one = {"type": "object", "properties": own, "maxProperties": 1}
        return {"anyOf": [plain, {**one, "additionalProperties": False}]}


class _Given(tuple[type[Settings] | None, Any]):
    """What stands under a part's name, with the model that it must fit."""


def _fitted(given: Any) -> Settings:
    model, value = given if isinstance(given, _Given) else (None, given)
    if model is None:
        raise PydanticCustomError("extra_forbidden", "no such setting")
    fitted: Settings = model.model_validate(value)
    return fitted


class Open(Settings):
    """A section that names parts: settings of a part's own stand there, under its name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Annotated[Any, PlainValidator(_fitted)]]
    parts: ClassVar[str]  # of which kind
    naming: ClassVar[str] = "name"  # the setting that names the part, or several

    def own(self, name: str) -> dict[str, Any]:
        """Settings of a part's own."""
        found = (self.model_extra or {}).get(name)
        return {} if found is None else dict(found)

    @classmethod
    def model_of(cls, name: str) -> type[Settings] | None:
        """What may stand under a part's name; None: nothing."""
        known = name in TABLES[cls.parts]
        return TABLES[cls.parts].part(name).settings if known else None

    @model_validator(mode="before")
    @classmethod
    def _with_own(cls, data: Any) -> Any:
        """What the file leaves out is at the part's defaults."""
        if not isinstance(data, dict):
            return data
        named = data.get(cls.naming)
        words = named if isinstance(named, list | tuple) else [named]
        try:
            absent: dict[str, Any] = {
                n: {} for n in words if isinstance(n, str) and cls.model_of(n)
            }
            return {
                key: value if key in cls.model_fields else _Given((cls.model_of(key), value))
                for key, value in (absent | data).items()
            }
        except UserError as error:
            raise PydanticCustomError("plugin", "{why}", {"why": str(error)}) from None

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        found: dict[str, Any] = handler(schema)
        section = handler.resolve_ref_schema(found)
        section["additionalProperties"] = False
        for name in TABLES[cls.parts]:
            if own := cls.model_of(name):
                section["properties"][name] = own.model_json_schema()
        return found
