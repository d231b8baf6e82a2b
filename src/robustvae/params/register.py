"""The door by which every part comes in: built-in ones by where their code is, plug-ins as such.

Each function is a decorator of the part's code, which is returned as it is. A part's settings of
its own are its keywords that have a default; what they are in params.yaml stands in its section
under the part's name.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from robustvae.errors import UserError
from robustvae.params import parts, plugins
from robustvae.params.geometry import Preset

Code = TypeVar("Code")
GROUPS = ("noise", "blur", "photometric", "overlay", "geometric")


def corruption(
    name: str,
    code: Any = None,
    *,
    group: str,
    severities: Sequence[Any],
    default: int = 3,
    monotone: bool = True,
) -> Callable[[Code], Code]:
    """A function (images, parameter, rng) -> images, both uint8 [B, C, H, W].

    `severities`: the parameter at severities 1 to 5; `default` is the severity that is meant where
    none is named; `monotone`: the distance to the clean image grows with severity.

    >>> import robustvae as rv, torch
    >>> @rv.register.corruption("haze", group="photometric", severities=(20, 40, 60, 80, 100))
    ... def haze(images, amount, rng):
    ...     return images.clamp(min=amount)
    >>> rv.corrupt(torch.zeros(1, 8, 8, dtype=torch.uint8), "haze", severity=2).min()
    tensor(40, dtype=torch.uint8)
    """
    if group not in GROUPS or len(severities) != 5 or default not in range(1, 6):
        raise UserError(
            f"corruption {name!r}: needs a group of {', '.join(GROUPS)}, five severities, a "
            f"default of 1 .. 5, got {group!r}, {len(severities)}, {default!r}"
        )
    facts = {"group": group, "severities": severities, "default": default, "monotone": monotone}
    return _door("corruption", name, code, facts, ("images", "amount", "rng"), None, ("rules",))


def divergence(
    name: str, code: Any = None, *, student_t: bool = False, takes: Sequence[str] = ()
) -> Callable[[Code], Code]:
    """A function (mu, logvar, mu0, logvar0), [B, Z] and [Z] -> [B], in nats; or a `Divergence`.

    Those are of the posterior and of the prior. `student_t`: of Student-t laws, which loss.df > 2
    asks for; else of normal ones. A keyword `alpha` is loss.alpha. `takes`: is read from the code.
    """
    formula = ("mu", "logvar", "mu0", "logvar0")
    facts = {"student_t": student_t, "takes": takes}
    given = ("alpha", "df", "strict", "latent_dim", "data_dim", "sigma")
    function = () if student_t else formula  # the laws of a function are normal
    return _door("divergence", name, code, facts, function, {"formula": formula}, given)


def likelihood(name: str, code: Any = None, *, takes: Sequence[str] = ()) -> Callable[[Code], Code]:
    """A `Likelihood`, made with those of variance, sigma, df, latent_dim that it takes."""
    methods = {"score": ("x", "out", "z", "dtype"), "sample": ("out", "z")}
    given = ("variance", "sigma", "df", "latent_dim")
    return _door("likelihood", name, code, {"takes": takes}, (), methods, given)


def latent(name: str, code: Any = None) -> Callable[[Code], Code]:
    """A subclass of `models.latents.Continuous`, which is made as that: see there."""
    methods = {"forward": ("h",), "posterior": ("h",), "prior": ()}
    return _door("latent", name, code, {}, (), methods, ("g", "settings", "loss", "divergence"))


def net(name: str, code: Any = None, **preset: Any) -> Callable[[Code], Code]:
    """A class with encoder(g, channels) and decoder(g, latent_dim, channels), which give modules.

    `preset`: what its geometry g is made of unless settings say otherwise, the fields of
    `params.geometry.Preset`. With a `kernel` features are maps that shrink from stage to stage;
    without one, as here by default, they are a vector as long as the last width.
    """
    known = [field.name for field in fields(Preset)]
    if strange := [key for key in preset if key not in known]:
        raise UserError(f"net {name!r}: {strange[0]} is none of {', '.join(known)}")
    methods = {"encoder": ("g", "channels"), "decoder": ("g", "latent_dim", "channels")}
    return _door("net", name, code, preset, (), methods)


def dataset(
    name: str, code: Any = None, *, native: tuple[int, int] | None, licence: str
) -> Callable[[Code], Code]:
    """A class with download(raw, root, library) and read(raw, root) -> `data.pictures.Pictures`.

    `native`: side in pixels and channels of its images; None: preprocess.image_size must say.
    """
    methods = {"download": ("raw", "root", "library"), "read": ("raw", "root")}
    return _door("dataset", name, code, {"native": native, "licence": licence}, (), methods)


def metric(
    name: str, code: Any = None, *, quantities: Sequence[str] = (), pixels: bool = False
) -> Callable[[Code], Code]:
    """A function of a `robustness.metrics.Pair` -> {quantity: values [B]}, one per image.

    `quantities`: what it gives, its own name by default; `pixels`: it looks at images alone, so
    that the baselines have it too.
    """
    named = tuple(quantities) or (name,)
    for other in parts.TABLES["metric"].built_in().values():
        if other.name != name and (both := set(named) & set(other.facts["quantities"])):
            raise UserError(f"metric {name!r}: {both.pop()} is one of {other.name}; rename it")
    facts = {"quantities": named, "pixels": pixels}
    return _door("metric", name, code, facts, ("pair",))


def robust(
    name: str, code: Any = None, *, strength: str, weighs: bool = True
) -> Callable[[Code], Code]:
    """A function (losses [B], strength) -> weights of the images of a batch [B], in [0, 1].

    `strength`: what loss.robust.strength is, with an example, for the message where it is missing.
    """
    facts = {"strength": strength, "weighs": weighs}
    return _door("robust", name, code, facts, ("losses", "strength"))


def _door(
    kind: str,
    name: str,
    code: Any,
    facts: dict[str, Any],
    arguments: tuple[str, ...],  # of a function; (): it must be a class
    methods: Mapping[str, tuple[str, ...]] | None = None,  # of a class; None: no class
    given: tuple[str, ...] = (),  # keywords that are no settings of its own
) -> Callable[[Code], Code]:
    def enter(code: Code) -> Code:
        if isinstance(code, str):
            parts.add(parts.Part(kind, name, code, facts))
            return code
        title, where = f"{kind} {name!r}", plugins.origin(code)
        if not name.isidentifier() or name in parts.RESERVED:
            raise UserError(
                f"{title}: must be a word of letters, digits and _, and none of "
                f"{', '.join(parts.RESERVED)}"
            )
        if where.room not in (None, parts.ROOMS[kind]):
            raise UserError(f"{title}: belongs into plugins/{parts.ROOMS[kind]}, where DVC looks")
        names = _signature(code, title, arguments, methods)
        own = parts.own_settings(names, given, title) if kind != "dataset" else None
        taken = {"takes": [n for n in given if n in names]} if "takes" in facts else {}
        digest = plugins.digest(code)
        parts.add(parts.Part(kind, name, code, facts | taken, own, where.text, digest))
        return code

    return enter if code is None else enter(code)


def _signature(
    code: Any,
    title: str,
    arguments: tuple[str, ...],
    methods: Mapping[str, tuple[str, ...]] | None,
) -> Mapping[str, inspect.Parameter]:
    """Keywords of a function or class; UserError where it does not take what it will be given."""
    if not inspect.isclass(code):
        if not (arguments and callable(code)):
            raise UserError(f"{title}: must be a class with {', '.join(methods or ())}")
        _binds(code, title, arguments)
        names = dict(inspect.signature(code, eval_str=True).parameters)
        return dict(list(names.items())[len(arguments) :])
    if methods is None:
        raise UserError(f"{title}: must be a function ({', '.join(arguments)}), no class")
    for method, wanted in methods.items():
        if not callable(getattr(code, method, None)):
            raise UserError(f"{title}: needs a method {method}({', '.join(wanted)})")
        _binds(getattr(code, method), f"{title}: {method}", ("self", *wanted))
    return inspect.signature(code, eval_str=True).parameters


def _binds(function: Any, title: str, arguments: tuple[str, ...]) -> None:
    signature = inspect.signature(function)
    try:
        signature.bind(*arguments)
    except TypeError:
        names = ", ".join(signature.parameters)
        raise UserError(f"{title}: must take ({', '.join(arguments)}), got ({names})") from None
