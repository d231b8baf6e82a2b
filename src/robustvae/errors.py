"""The one exception that stands for a user's mistake, and what was probably meant."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """One line for the user: the place, the value, what is allowed, what to do.

    >>> import numpy as np, robustvae as rv
    >>> rv.corrupt(np.zeros((8, 8), np.uint8), "fogg")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    robustvae.errors.UserError: corruption: unknown 'fogg' (did you mean 'fog'?); one of ...
    """


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The nearest known word, for the end of a message; '' where none is near."""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.5)
    return f" (did you mean {names[close[0]]!r}?)" if close else ""
