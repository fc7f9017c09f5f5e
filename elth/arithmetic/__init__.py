"""Whether this machine computes a network rightly, and the kind of machine that it is.

Libraries have faults that give wrong numbers without a word, on some processors only. So a step of
each network is compared with float64, layer by layer, before it is trained on a kind of machine for
the first time (``ensure``, which every engine calls).
"""

from __future__ import annotations

from elth.arithmetic._compiled import ensure_alike, keep_apart
from elth.arithmetic._gate import (
    CHOICES,
    VARIABLE,
    Found,
    WrongArithmeticError,
    ensure,
    look,
    told,
    where,
)
from elth.arithmetic._machine import NUMBER, gpu, number, processor
from elth.arithmetic._watch import Worst

__all__ = [
    "CHOICES",
    "NUMBER",
    "VARIABLE",
    "Found",
    "Worst",
    "WrongArithmeticError",
    "ensure",
    "ensure_alike",
    "gpu",
    "keep_apart",
    "look",
    "number",
    "processor",
    "told",
    "where",
]
