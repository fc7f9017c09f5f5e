"""The one error that users are meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ElthError(ValueError):
    """A request that cannot be met as asked.

    The message is one line that says what was found, what was expected and what to do.
    The command line prints it and exits with code 2; no traceback is shown.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, or an empty string."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else ""


def unknown(kind: str, word: str, known: Iterable[str]) -> ElthError:
    """Build the error for a word that is not in a registry, with what there is."""
    names = list(known)
    return ElthError(
        f"unknown {kind} '{word}'{nearest(word, names)} (there is: {', '.join(names)})"
    )
