"""What every network is: a module with an anatomy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal
from weakref import WeakKeyDictionary

from torch import nn

from elth.meanings import About
from elth.networks._anatomy import Anatomy

Init = Annotated[
    Literal["kaiming_normal", "kaiming_uniform", "kaiming_uniform_fan_out"],
    About("Law of the initial weights; it goes by the fan-in unless it says otherwise."),
]


class Network(nn.Module):
    """A classifier that knows its anatomy. Input (batch, channels, size, size), output logits."""

    anatomy: Anatomy
    init: Init = "kaiming_normal"
    """The law by which ``initialise`` draws its weights."""


NAMES: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
"""What a network that was made by its name is called, with its options."""

Builder = Callable[..., Network]
"""``build(shape, *, option=default, ...)``; the keyword defaults are the network's options.

An option that takes one of several words is annotated with their ``Literal``, and each of ours with
what it is ``About``.
"""
