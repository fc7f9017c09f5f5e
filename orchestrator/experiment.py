"""Experiments: what a YAML file may say, checked in one place.

An experiment names a dataset, seeds, a recipe and a grid. Each entry of the grid is a product: any
of its values may be a list. What is needed on the way (rewind points, rounds) follows from it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from elth import data
from elth.errors import ElthError, nearest, unknown
from elth.networks import canonical
from elth.recipes import RECIPES, Recipe, Step

METHODS = ("dense", "imp", "ett", "reinit", "random", "magnitude")
NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*"


class Section(BaseModel):
    """A part of the file: frozen, and no key but those that are named here."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else (value,)


OneOrMore = BeforeValidator(_as_tuple)


class Pruning(Section):
    """Iterative magnitude pruning."""

    rate: float = Field(default=0.2, gt=0, lt=1)
    """Fraction of the remaining weights that a round removes."""
    rounds: int = Field(default=13, ge=1)
    """Number of prunings; the last ticket is that of round ``rounds``."""


class Entry(Section):
    """A product of cells: one for each combination of the values given."""

    method: Annotated[tuple[str, ...], OneOrMore] = Field(min_length=1)
    """dense, imp, ett, reinit, random or magnitude."""
    network: Annotated[tuple[str, ...], OneOrMore] = Field(min_length=1)
    """The network that is trained."""
    source: Annotated[tuple[str, ...], OneOrMore] = ()
    """ett: the network on which the ticket was found."""
    transform: Annotated[tuple[str, ...], OneOrMore] = ("auto",)
    """ett: the plan, as ``append`` or ``drop:1-4``."""
    round: Annotated[tuple[int, ...], OneOrMore] = ()
    """Rounds of IMP: of the ticket, or of the number of non-zeros that is matched. Left out: every
    round for imp, the last one for other methods."""

    @model_validator(mode="after")
    def _fits_method(self) -> Entry:
        for method in self.method:
            if method not in METHODS:
                raise unknown("method", method, METHODS)
            if (method == "ett") != bool(self.source):
                raise ElthError(
                    f"method {method} {'needs' if method == 'ett' else 'takes no'} source: the "
                    "network on which the ticket was found"
                )
            if method != "ett" and "transform" in self.model_fields_set:
                raise ElthError(f"method {method} takes no transform; only ett does")
            if method == "dense" and self.round not in ((), (0,)):
                raise ElthError("method dense takes no round; it is round 0")
        if any(k < 0 for k in self.round) or (0 in self.round and self.method != ("dense",)):
            raise ElthError("round counts prunings from 1; the dense network is method dense")
        return self

    @field_validator("network", "source")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(canonical(name)) for name in names)


class Data(Section):
    """Where the dataset lies. Never part of a key."""

    root: Path = Path("data")
    """Folder, laid out as torchvision does."""
    download: bool = False
    """Whether a dataset that is missing is downloaded."""


class Resources(Section):
    """What a trial gets. Never part of a key."""

    cpus: int = Field(default=1, ge=1)
    """Cores of a trial, and threads of its training."""
    gpus: float = Field(default=0, ge=0, le=1)
    """GPUs of a trial; a fraction lets trials share one."""
    concurrent: int | None = Field(default=None, ge=1)
    """Trials at a time; as many as the resources allow when left out."""


def _to_step(value: Any) -> Step:
    return Step.parse(value)


def _recipe_model() -> type[BaseModel]:
    """The fields of ``elth.Recipe`` as a section, so that they are stated once."""
    hints = get_type_hints(Recipe)
    step = Annotated[Step, BeforeValidator(_to_step)]
    types = {Step: step, tuple[Step, ...]: tuple[step, ...]}
    return create_model(
        "RecipeSection",
        __config__=ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True),
        **{  # type: ignore[call-overload]
            f.name: (
                types.get(hints[f.name], hints[f.name]),
                ... if f.default is dataclasses.MISSING else f.default,
            )
            for f in dataclasses.fields(Recipe)
        },
    )


_RECIPE_MODEL = _recipe_model()


def _to_recipe(value: Any) -> Recipe:
    """A name of a recipe, or its fields, or ``base`` with the fields that differ."""
    if isinstance(value, Recipe):
        return value
    if isinstance(value, str):
        value = {"base": value}
    if not isinstance(value, dict):
        raise ElthError(f"a recipe is a name or a mapping, found {value!r}")
    fields = dict(value)
    base: dict[str, Any] = {}
    if "base" in fields:
        name = fields.pop("base")
        if not isinstance(name, str) or name not in RECIPES:
            raise unknown("recipe", str(name), RECIPES)
        base = {f.name: getattr(RECIPES[name], f.name) for f in dataclasses.fields(Recipe)}
    checked = _RECIPE_MODEL.model_validate({**base, **fields})
    return Recipe(**{f.name: getattr(checked, f.name) for f in dataclasses.fields(Recipe)})


class Experiment(BaseModel):
    """One experiment, as resolved from its file and overrides."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    name: str = Field(pattern=f"^{NAME}$")
    """Name of the grid; ``elth report`` finds it by this."""
    description: str = ""
    """A sentence for people."""
    dataset: str
    """Name of the dataset."""
    seeds: Annotated[tuple[int, ...], OneOrMore] = Field(min_length=1)
    """Seeds; each fixes initialisation, data order and every draw."""
    recipe: Annotated[Recipe, BeforeValidator(_to_recipe)]
    """How every network of the experiment is trained."""
    pruning: Pruning = Pruning()
    grid: tuple[Entry, ...] = Field(min_length=1)
    """What is compared."""
    data: Data = Data()
    resources: Resources = Resources()

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, name: str) -> str:
        data.info(name)
        return name

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if any(seed < 0 for seed in seeds) or len(set(seeds)) != len(seeds):
            raise ElthError(f"seeds must be different whole numbers from 0 on, found {list(seeds)}")
        return tuple(sorted(seeds))

    @model_validator(mode="after")
    def _rounds_exist(self) -> Experiment:
        for entry in self.grid:
            for k in entry.round:
                if k > self.pruning.rounds:
                    raise ElthError(
                        f"round {k} of method {entry.method[0]} is beyond the last one: "
                        f"pruning.rounds is {self.pruning.rounds}"
                    )
        return self

    def cells(self) -> Iterator[Cell]:
        """Every combination that the grid asks for, seeds apart, in the order of the file."""
        for entry in self.grid:
            for method, network in product(entry.method, entry.network):
                every = range(1, self.pruning.rounds + 1) if method == "imp" else ()
                rounds: Sequence[int] = entry.round or every or (self.pruning.rounds,)
                if method == "dense":
                    rounds = (0,)
                sources = entry.source or ("",)
                transforms = entry.transform if method == "ett" else ("",)
                for source, transform, k in product(sources, transforms, rounds):
                    yield Cell(method, network, source, transform, k)

    def resolved(self) -> str:
        """The whole experiment as YAML, defaults included."""
        plain = self.model_dump(mode="json", exclude={"recipe", "grid"})
        plain["recipe"] = self.recipe.full()
        plain["grid"] = [e.model_dump(mode="json", exclude_unset=True) for e in self.grid]
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One combination that is asked for: method, network, source, transform, round."""

    method: str
    network: str
    source: str
    transform: str
    round: int


def load(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment from a YAML file, changed by ``key=value`` overrides.

    Args:
        path: the file.
        overrides: as ``seeds=[0]``, ``pruning.rounds=10`` or ``grid.0.network=resnet32``; the
            value is YAML.

    Raises:
        ElthError: one line that names the file, the key, what was found and what was expected.
    """
    path = Path(path)
    raw = _read(path)
    for override in overrides:
        _override(raw, override)
    raw.setdefault("name", re.sub(r"[^A-Za-z0-9_-]", "-", path.stem))
    try:
        return Experiment.model_validate(raw)
    except ValidationError as error:
        raise ElthError(f"{path}: {_first(error)}") from error
    except ElthError as error:
        raise ElthError(f"{path}: {error}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ElthError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ElthError(f"{path} is no text in UTF-8: {error}") from error
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date as 2001-13-45
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ElthError(f"{path} is no valid YAML{where}: {problem}") from error
    if raw is None:
        raise ElthError(f"{path} is empty; an experiment needs at least dataset, seeds and grid")
    if not isinstance(raw, dict):
        raise ElthError(
            f"{path} must hold a mapping of keys to values, found a {type(raw).__name__}"
        )
    return raw


def _override(raw: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ElthError(f"cannot read the override '{text}': write key=value, as seeds=[0,1]")
    try:
        parsed = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:
        raise ElthError(f"the value of the override '{text}' is no valid YAML") from error
    *path, last = key.split(".")
    node: Any = raw
    if key.startswith("recipe.") and isinstance(raw.get("recipe"), str):
        raw["recipe"] = {"base": raw["recipe"]}
    for part in path:
        if isinstance(node, list):
            node = node[_index(node, part, text)]
        else:
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        if not isinstance(node, dict | list):
            raise ElthError(f"the override '{text}' goes below '{part}', which is a single value")
    if isinstance(node, list):
        node[_index(node, last, text)] = parsed
    else:
        node[last] = parsed


def _index(node: list[Any], part: str, text: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise ElthError(
            f"the override '{text}' names element '{part}' of a list of {len(node)}, counted from 0"
        )
    return int(part)


def _first(error: ValidationError) -> str:
    """The first complaint as one line: where, what was found, what was expected."""
    details = error.errors()[0]
    where = ".".join(str(part) for part in details["loc"])
    inner = details.get("ctx", {}).get("error")
    if details["type"] == "extra_forbidden":
        *parents, key = details["loc"]
        known = _keys_at(parents)
        return f"unknown key '{where}'{nearest(str(key), known)} (there is: {', '.join(known)})"
    if details["type"] == "missing":
        return f"key '{where}' is missing"
    if isinstance(inner, ElthError):
        return f"in {where}: {inner}" if where else str(inner)
    if details["type"] == "model_type":
        return f"{where}: expected a mapping of keys to values, found {details['input']!r}"
    message = details["msg"].replace("tuple", "list").replace("Tuple", "list")
    return f"{where}: {message[0].lower()}{message[1:]}, found {details['input']!r}"


def _keys_at(parents: Sequence[int | str]) -> list[str]:
    section: Any = Experiment
    for part in parents:
        if part == "recipe":
            return [*_RECIPE_MODEL.model_fields, "base"]
        section = {"grid": Entry, "pruning": Pruning, "data": Data, "resources": Resources}.get(
            str(part), section
        )
    return list(section.model_fields)
