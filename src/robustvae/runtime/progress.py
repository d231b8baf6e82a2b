"""Progress that suits its place: a bar on a terminal, a plain line now and then in a log."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
LOG_EVERY = 10.0  # seconds between lines in a log


def track(
    iterable: Iterable[T], label: str, total: int | None = None, unit: str = "it"
) -> Iterator[T]:
    """Yield the items of `iterable` while showing how far along it is."""
    if sys.stderr.isatty():
        yield from tqdm(
            iterable, desc=label, total=total, unit=unit, dynamic_ncols=True, leave=False
        )
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
