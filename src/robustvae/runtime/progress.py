"""Progress that suits its place: a bar on a terminal or in a notebook, lines in a log."""

import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
LOG_EVERY = 10.0  # seconds between lines in a log


def live() -> bool:
    """Is there somebody who sees a bar move: a terminal or a notebook?"""
    return sys.stderr.isatty() or _notebook()


def bar(**how: Any) -> "tqdm[Any]":
    """A bar, in a notebook one of its own; nothing in a log."""
    kind: Any = tqdm
    if _notebook():
        import tqdm.notebook as notebook

        kind = notebook.tqdm
    found: tqdm[Any] = kind(dynamic_ncols=True, leave=False, disable=not live(), **how)
    return found


def _notebook() -> bool:
    return "ipykernel" in sys.modules and find_spec("ipywidgets") is not None


def track(
    iterable: Iterable[T], label: str, total: int | None = None, unit: str = "it"
) -> Iterator[T]:
    """Yield the items of `iterable` while showing how far along it is."""
    if live():
        yield from bar(iterable=iterable, desc=label, total=total, unit=unit)
    else:
        yield from tqdm(
            iterable,
            total=total,
            unit=unit,
            ncols=0,
            desc=label,
            mininterval=LOG_EVERY,
            delay=LOG_EVERY,
            bar_format="{desc}: {n_fmt}/{total_fmt} {rate_fmt}\n",
        )


def say(text: str) -> None:
    """One line on standard output, at once, above a bar that may be there."""
    tqdm.write(text)
    sys.stdout.flush()
