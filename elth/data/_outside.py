"""Datasets from outside: functions of users, known by what is declared of them.

What a plan must know stands above the function (``elth.dataset``), and is asked for in the process
beside this one, which imports its module. A key holds the declared fingerprint, which every process
that reads the dataset compares with what it found: so the code that reads has no part in the key.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elth import meanings, plugins, specs
from elth.data._declaration import Declaration, declarations
from elth.data._info import DatasetInfo
from elth.data._sources import defaults_of, seen, showing
from elth.errors import ElthError, unknown
from elth.remembered import remembered
from elth.specs import Choice, DataShape, Option, Spec

if TYPE_CHECKING:
    from elth.data._memory import MemoryDataset

_KIND = "DATASETS"
_SHOWN = tuple(showing(DataShape()))
"""Options of every dataset in memory: how its images are shown."""
_TAKEN = ("centre_crop", "name", "fingerprint", "mean", "deviation", "preprocessing")
"""Words that mean something else in a dataset's identity, or to what shows its images."""


@dataclass(frozen=True, kw_only=True)
class OutsideSource:
    """A dataset from outside, as its author declares it.

    Its options are those of the function, and ``size``, ``channels`` and ``centre_crop`` as of any
    other dataset in memory where the function has none of that name.
    """

    name: str
    """A reference, as ``my_lab.data:cells``, or a name that a listed module gives."""
    module: str
    """The module that names it."""
    own: Mapping[str, Option]
    """Options of the function with their defaults."""
    words: Mapping[str, Sequence[str]]
    """The words that an option may be."""
    meanings: Mapping[str, str]
    """What options of the function are, where it says that."""
    about: str
    """What its author says of it, in a line."""
    declared: Mapping[tuple[tuple[str, Option], ...], Declaration]
    """By options of the function that differ from the defaults."""

    @property
    def choices(self) -> Mapping[str, Choice]:
        """The options; without declaration those of the function alone."""
        own = {
            key: Choice(
                default=default,
                about=self.meanings.get(key, ""),
                words=tuple(self.words.get(key, ())),
            )
            for key, default in self.own.items()
        }
        known = showing(self.declared[()].shape) if () in self.declared else {}
        return {**{key: one for key, one in known.items() if key not in own}, **own}

    @property
    def defaults(self) -> Mapping[str, Option]:
        """The options with their defaults."""
        return defaults_of(self.choices)

    def canonical(self, spec: Spec) -> Spec:
        """Check options; sort them, and leave out those that say the default.

        Raises:
            ElthError: unknown option, a value of another type than the default's, or nothing is
                declared for these options.
        """
        for key, _ in spec.options:
            if key not in self.own and key not in _SHOWN:
                raise unknown(f"option of dataset {self.name}", key, [*self.own, *_SHOWN])
        function = self.of_function(spec)
        rest = tuple(option for option in spec.options if option[0] not in self.own)
        defaults = self._shown(self._declaration(function))
        shown = specs.canonical(Spec(self.name, rest), "dataset", defaults)
        return Spec(self.name, tuple(sorted((*function.options, *shown.options))))

    def of_function(self, spec: Spec) -> Spec:
        """The name with the options that are the function's.

        Raises:
            ElthError: a value of another type than the default's.
        """
        options = tuple(option for option in spec.options if option[0] in self.own)
        return specs.canonical(
            Spec(self.name, options), "dataset", self.own, words=self.words, least=None
        )

    def describe(self, spec: Spec) -> DatasetInfo:
        """What is declared of it.

        Raises:
            ElthError: nothing is, or colour images should get another number of channels.
        """
        declared = self._declaration(self.of_function(spec))
        info = DatasetInfo(
            name=self.name,
            shape=declared.shape,
            train_size=declared.train_size,
            test_size=declared.test_size,
            fingerprint=declared.fingerprint,
            mean=declared.mean,
            deviation=declared.deviation,
            how_to_get=f"{self.name} reads it from the folder that data.root=DIR names",
        )
        if not spec.options:
            return info
        rest = {key: value for key, value in spec.options if key not in self.own}
        shown = {**self._shown(declared), **rest}
        return seen(
            info,
            spec,
            channels=int(shown.get("channels", declared.channels)),
            size=int(shown.get("size", declared.size)),
        )

    def load(self, info: DatasetInfo, root: Path, *, download: bool, full: bool) -> MemoryDataset:
        """Read the dataset by its function; it is always checked whole.

        Raises:
            ElthError: its function fails, or gives another than what is declared.
        """
        from elth.data._reading import checked, read

        spec = self.of_function(Spec.parse(info.name))
        parts = read(_function(self.name), spec, root)
        again = f"{_command(spec)} --root {shlex.quote(str(root))}"
        return checked(parts, self._declaration(spec), info, again)

    def _declaration(self, spec: Spec) -> Declaration:
        """What is declared with some options of the function."""
        if spec.options not in self.declared:
            raise ElthError(
                f"what {spec} reads is not declared: give {_command(spec)} and put what that "
                "prints above its function"
            )
        return self.declared[spec.options]

    def _shown(self, declared: Declaration) -> dict[str, Option]:
        """Options of how images are shown, with what they are when nothing is said."""
        known = defaults_of(showing(declared.shape))
        return {k: v for k, v in known.items() if k not in self.own}


def source(name: str) -> OutsideSource:
    """What is known of a dataset from outside.

    Raises:
        ElthError: there is none of this name, or its module cannot be imported.
    """
    told = remembered(_told, name, plugins.in_use(), also=plugins.state(name))
    made = (Declaration.of(one) for one in told["declared"])
    return OutsideSource(
        name=name,
        module=told["module"],
        own=told["defaults"],
        words=told["words"],
        meanings=told["meanings"],
        about=told["about"],
        declared={one.options: one for one in made},
    )


def registered() -> tuple[str, ...]:
    """The names that listed modules give."""
    if not plugins.listed():
        return ()
    return tuple(remembered(_registered, plugins.in_use(), also=plugins.state()))


def describe(asked: Spec, root: Path) -> Declaration:
    """Read a dataset from outside and tell what is to be declared of it.

    Args:
        asked: its name, with options of its function.
        root: the folder that the function is given.

    Raises:
        ElthError: there is none of this name, or its function fails or gives no dataset.
    """
    from elth.data._reading import measured, read

    found = source(asked.name)
    for key, _ in asked.options:
        if key not in found.own:
            raise unknown(f"option of the function {asked.name}", key, found.own)
    spec = found.of_function(asked)
    return measured(read(_function(asked.name), spec, root), spec)


def _command(spec: Spec) -> str:
    """The command that describes a dataset."""
    listed = "".join(f" --plugin {shlex.quote(path)}" for path in plugins.in_use())
    return f"elth data describe {shlex.quote(str(spec))}{listed}"


def _function(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = plugins.named(_KIND, name, "dataset")
    if not callable(function):
        raise ElthError(
            f"{name} is no function of a dataset: expected def f(root, *, option=default) -> "
            f"(train, test), found {function!r}"
        )
    return function


def _registered(paths: Sequence[str]) -> list[str]:
    plugins.use(paths)
    return list(plugins.registered(_KIND))


def _told(name: str, paths: Sequence[str]) -> dict[str, Any]:
    """What a function and the decorators above it tell, as JSON values."""
    plugins.use(paths)
    function = _function(name)
    told = plugins.keywords(function, "dataset")
    for key, default in told["defaults"].items():
        if key in _TAKEN:
            raise ElthError(f"the option {key} of the dataset {name} must have another name")
        if not isinstance(default, int | float | str):
            raise ElthError(
                f"option {key} of the dataset {name} is {default!r} when nothing is said; "
                "expected a number, true or false, or a word"
            )
    declared: dict[tuple[tuple[str, Option], ...], Declaration] = {}
    for one in declarations(function):
        spec = specs.canonical(
            Spec(name, one.options), "dataset", told["defaults"], words=told["words"], least=None
        )
        if spec.options in declared:
            raise ElthError(f"{spec} is declared twice: leave one decorator above its function")
        plain = {**one.plain(), "options": dict(spec.options)}
        declared[spec.options] = Declaration.of(plain)
    return {
        **told,
        "about": meanings.headline(function),
        "module": plugins.module_of(_KIND, name),
        "declared": [one.plain() for one in declared.values()],
    }
