"""Experiments: what a YAML file may say, checked in one place.

An experiment names a dataset, seeds, a recipe and a grid. Each entry of the grid is a product: any
of its values may be a list. What is needed on the way (rewind points, rounds) follows from it. A
file may hold profiles of another size under ``scales``; ``scale=smoke`` merges one into the rest.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from elth import criteria, dynamic
from elth.errors import ElthError, unknown
from elth.files import expanded
from elth.networks import canonical
from elth.recipes import Recipe
from orchestrator.experiment.analyses import Analysis
from orchestrator.experiment.basics import (
    NAME,
    Number,
    OneOrMore,
    Section,
    Whole,
    as_number,
    as_tuple,
    dataset_named,
)
from orchestrator.experiment.claims import MARGIN, Claim
from orchestrator.experiment.methods import REWIND, SOURCE, SPARSE, method_of
from orchestrator.experiment.papers import Paper
from orchestrator.experiment.pruning import Pruning
from orchestrator.experiment.recipes import RECIPE_MODEL, to_recipe
from orchestrator.experiment.variants import PARTS, PLAIN, patched, paths


def _as_rounds(value: Any) -> Any:
    return value if value == "all" else as_tuple(value)


AsRounds = BeforeValidator(
    _as_rounds, json_schema_input_type=Whole | tuple[Whole, ...] | Literal["all"]
)


class Imported(Section):
    """A ticket that was found elsewhere, as ``elth ticket import`` tells of it."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Of its weights and mask."""
    iteration: Whole = Field(ge=0)
    """From which its training goes on."""
    nonzeros: Whole = Field(ge=1)
    """How many weights its mask keeps: rounds are counted from these."""


class Entry(Section):
    """A product of cells: one for each combination of the values given."""

    method: Annotated[tuple[str, ...], OneOrMore] = Field(min_length=1)
    """What is trained, as ``imp``, ``ett`` or ``snip``: see ``elth methods``."""
    network: Annotated[tuple[str, ...], OneOrMore] = Field(min_length=1)
    """The network that is trained, as ``resnet20`` or ``resnet20(width=32)``: see ``elth
    networks``."""
    dataset: Annotated[tuple[str, ...], OneOrMore] = ()
    """The dataset it is trained on; the experiment's when left out."""
    source: Annotated[tuple[str, ...], OneOrMore] = ()
    """ett: the network on which the ticket was found."""
    source_dataset: Annotated[tuple[str, ...], OneOrMore] = ()
    """ett: the dataset on which it was found; the experiment's when left out."""
    transform: Annotated[tuple[str, ...], OneOrMore] = ("auto",)
    """ett: the plan, as ``append``, ``drop:1-4`` or ``double``."""
    round: Annotated[tuple[Whole, ...] | Literal["all"], AsRounds] = ()
    """Rounds of IMP: of the ticket, or of the number of non-zeros that is matched. Left out: every
    round for imp, the last one for other methods; ``all``: every round."""
    sparsity: Annotated[tuple[Number, ...], OneOrMore] = ()
    """Sparsities between those of two rounds, as 0.9: reached exactly by a last, smaller round."""
    variant: Annotated[tuple[str, ...], OneOrMore] = ()
    """Names of ``variants``; ``none`` is the experiment itself, which it is when left out."""
    noise: Annotated[tuple[Whole, ...], OneOrMore] = ()
    """Numbers of twins, from 1: the ticket of the cell trained once more, with another data order
    and augmentation and nothing else changed. 0 is the cell itself, which it is when left out."""
    ticket: Annotated[tuple[str, ...], OneOrMore] = ()
    """An imported ticket, by its name under ``tickets``: it takes the place of the rewind
    point, and rounds are counted from it. Round 0 is the ticket as it is, and what methods other
    than imp start from where no round is given."""
    keep: Literal["weights"] | None = None
    """``weights``: what is trained leaves its trained weights in the store, as rounds do."""

    @model_validator(mode="after")
    def _fits_method(self) -> Entry:
        for method in self.method:
            moved = method_of(method).base == SOURCE
            if moved != bool(self.source):
                raise ElthError(
                    f"method {method} {'needs' if moved else 'takes no'} source: the "
                    "network on which the ticket was found"
                )
            for field in ("transform", "source_dataset"):
                if not moved and field in self.model_fields_set:
                    raise ElthError(f"method {method} takes no {field}; only ett does")
            if method == "dense" and (self.round not in ((), (0,)) or self.sparsity):
                raise ElthError("method dense takes no round; it is round 0")
            if self.ticket:
                _check_takes_ticket(method)
        from_0 = self.ticket or all(method in ("dense", "reinit") for method in self.method)
        if self.round != "all" and (
            any(k < 0 for k in self.round) or (0 in self.round and not from_0)
        ):
            raise ElthError(
                "round counts prunings from 1; the dense network is method dense, and with its "
                "weights drawn anew round 0 of method reinit"
            )
        if any(number < 0 for number in self.noise):
            raise ElthError(f"noise counts twins from 1; found {list(self.noise)}")
        for value in self.sparsity:
            if not 0 < value < 1:
                raise ElthError(f"sparsity is a fraction between 0 and 1, as 0.9; found {value}")
        return self

    @property
    def variants(self) -> tuple[str, ...]:
        """The names of its variants; an empty one is the experiment itself."""
        return tuple("" if name == PLAIN else name for name in self.variant) or ("",)

    @field_validator("network", "source")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(canonical(name)) for name in names)

    @field_validator("dataset", "source_dataset")
    @classmethod
    def _known_dataset(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dataset_named(name) for name in names)

    def levels(self, method: str, pruning: Pruning) -> Iterator[tuple[int, str]]:
        """Rounds and exact sparsities that are asked of a method, as (round, "") or (0, "0.9")."""
        every = tuple(range(0 if self.ticket else 1, pruning.rounds + 1))
        rounds: Sequence[int] = every if self.round == "all" else self.round
        if method == "dense":
            rounds = (0,)
        elif not rounds and not self.sparsity:
            rounds = every if method == "imp" else (0 if self.ticket else pruning.rounds,)
        for k in rounds:
            yield k, ""
        for value in self.sparsity:
            yield 0, repr(value)


def _check_takes_ticket(method: str) -> None:
    """Refuse a method that has nothing to do with an imported ticket."""
    found = method_of(method)
    why = ""
    if method == "dense":
        why = "it trains all weights; the ticket as it is, is imp with round: 0"
    elif found.base == REWIND:
        why = "it prunes a dense network at its own rewind point"
    elif found.base == SPARSE:
        why = "it has a mask of its own from the start"
    elif any("graft" in step for step in found.steps):
        why = "it takes weights of the target's rewind point, where no imported ticket has any"
    if why:
        raise ElthError(f"method {method} takes no ticket: {why}")


class Data(Section):
    """Where the dataset lies. Never part of a key."""

    root: Annotated[Path, AfterValidator(expanded)] = Path("data")
    """Folder in which datasets lie, relative to the current directory, as ``manifest=`` of a folder
    is (``plugins`` are relative to the config). MNIST, CIFAR-10 and SVHN are laid out there as
    torchvision does, ImageNet as ``imagenet/train/CLASS/*`` and ``imagenet/val/CLASS/*``; a folder
    of images has the name in its manifest, and lies there or beside the manifest. The function of a
    dataset of your own is given it. Digits need none."""
    download: bool = False
    """Whether a dataset that is missing is downloaded."""


class Resources(Section):
    """What a trial gets. Never part of a key."""

    cpus: Whole = Field(default=1, ge=1)
    """Cores of a trial's worker, and threads of its training."""
    gpus: Number = Field(default=0, ge=0, le=1)
    """GPUs of a trial's worker; a fraction lets trials share one."""
    workers: Whole = Field(default=1, ge=1)
    """Processes that train a network together, each with its part of every batch."""
    placement: Literal["pack", "strict_pack", "spread", "strict_spread"] = "pack"
    """How a trial's workers lie on the nodes of a cluster: on few, on one, on many, on one each."""
    concurrent: Whole | None = Field(default=None, ge=1)
    """Trials at a time; as many as the resources allow when left out."""
    compile: Literal["auto"] | bool = "auto"
    """Whether networks are compiled; ``auto``: those whose training is long enough to pay for it.
    Part of the numerics class."""
    checkpoint_minutes: Number = Field(default=5, ge=0)
    """Minutes between two checkpoints of a training: what is lost at most if its process dies."""
    storage: str | None = None
    """Where these checkpoints lie: a directory, or an address as ``s3://BUCKET/PATH``. Beside the
    store when left out; with a store that is a server, nodes of a cluster need a shared place."""

    @model_validator(mode="after")
    def _whole_gpus(self) -> Resources:
        if self.workers > 1 and self.gpus not in (0, 1):
            raise ElthError(
                f"workers: {self.workers} with gpus: {self.gpus:g} would put two workers of a "
                "trial on one GPU, which NCCL refuses: write gpus: 1 for one GPU each (or 0 for "
                "none), or workers: 1"
            )
        return self


_Recipe = Annotated[Recipe, BeforeValidator(to_recipe)]


class _Checked(BaseModel):
    """Checks of what fixes the results of an experiment beside its cells."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @field_validator("recipes", check_fields=False)
    @classmethod
    def _known_datasets(cls, recipes: dict[str, Recipe]) -> dict[str, Recipe]:
        known: dict[str, Recipe] = {}
        for name, recipe in recipes.items():
            canonical = dataset_named(name)
            if canonical in known:
                raise ElthError(f"two recipes are for {canonical}: keep one of them")
            known[canonical] = recipe
        return known

    @field_validator("criteria", check_fields=False)
    @classmethod
    def _settings(cls, settings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {name: _criterion_settings(name, given) for name, given in settings.items()}


class Settings(_Checked):
    """What of an experiment variants may change."""

    recipe: _Recipe
    recipes: dict[str, _Recipe] = {}
    pruning: Pruning = Pruning()
    criteria: dict[str, dict[str, Any]] = {}


class Experiment(_Checked):
    """One experiment, as resolved from its file and overrides."""

    name: str = Field(pattern=f"^{NAME}$")
    """Name of the grid, by which ``elth report`` finds it; that of the file when left out."""
    description: str = ""
    """A sentence for people."""
    plugins: tuple[str, ...] = ()
    """Modules from outside that the rest may name things of, by their files or package folders;
    relative to the config. Never part of a key: what is used of them enters it by a version."""
    paper: Paper | None = None
    """The table or figure that this is the setting of."""
    dataset: str
    """The dataset, as ``mnist`` or ``cifar10(size=224)``: see ``elth data list``."""
    seeds: Annotated[tuple[Whole, ...], OneOrMore] = Field(min_length=1)
    """Seeds; each fixes initialisation, data order and every draw."""
    recipe: _Recipe
    """How every network of the experiment is trained."""
    recipes: dict[str, _Recipe] = {}
    """Datasets of the grid that are trained by another recipe, by name."""
    pruning: Pruning = Pruning()
    """How tickets are found."""
    criteria: dict[str, dict[str, Any]] = {}
    """Settings of pruning criteria, and of methods of sparse training, that differ from their
    papers', as ``snip: {samples: 256}``."""
    variants: dict[str, dict[str, Any]] = {}
    """Patches that entries of the grid name, as ``b512: {recipe.batch_size: 512}``: what of recipe,
    recipes, pruning and criteria differs from the rest of the file."""
    tickets: dict[str, Imported] = {}
    """Imported tickets, by the names that the grid calls them."""
    grid: tuple[Entry, ...] = Field(min_length=1)
    """What is compared."""
    analyses: tuple[Analysis, ...] = ()
    """What is measured of trained networks of the grid."""
    claims: tuple[Claim, ...] = ()
    """What is claimed of accuracies, as ``{ett: above, of: [reinit, random], round: 10}``: judged
    by the report. Another one trains nothing again."""
    margin: Number = Field(default=MARGIN, gt=0, le=100)
    """Points of accuracy within which a report takes two for equal. Another one trains nothing
    again."""
    data: Data = Data()
    """Where the dataset lies."""
    resources: Resources = Resources()
    """What a trial gets."""

    @field_validator("dataset")
    @classmethod
    def _known_dataset(cls, name: str) -> str:
        return dataset_named(name)

    @field_validator("variants", mode="before")
    @classmethod
    def _patches(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        found = {}
        for name, patch in given.items():
            if not isinstance(name, str) or not re.fullmatch(NAME, name) or name == PLAIN:
                raise ElthError(
                    f"a variant is named by letters, digits, - and _, and not {PLAIN}, which is "
                    f"the experiment itself; found {name!r}"
                )
            try:
                found[name] = paths(patch)
            except ElthError as error:
                raise ElthError(f"{name}: {error}") from error
        return found

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if any(seed < 0 for seed in seeds) or len(set(seeds)) != len(seeds):
            raise ElthError(f"seeds must be different whole numbers from 0 on, found {list(seeds)}")
        return tuple(sorted(seeds))

    def _refuse_idle(self) -> None:
        """Refuse settings of what the grid does not hold: they would be meant for something."""
        datasets = {self.dataset, *(d for e in self.grid for d in (*e.dataset, *e.source_dataset))}
        for name in self.recipes:
            if name not in datasets:
                raise ElthError(
                    f"recipes names the dataset {name}, which the grid does not use (it uses: "
                    f"{', '.join(sorted(datasets))})"
                )
        used = {method_of(method).criterion for entry in self.grid for method in entry.method}
        for name in self.criteria:
            if name not in used:
                raise ElthError(
                    f"criteria has settings of {name}, and no method of the grid uses it"
                )

    @model_validator(mode="after")
    def _nothing_is_idle(self) -> Experiment:
        self._refuse_idle()
        named = {name for entry in self.grid for name in entry.variants}
        for name in sorted(named - self.variants.keys() - {""}):
            raise unknown("variant", name, [*self.variants, PLAIN])
        for name in self.variants:
            if name not in named:
                raise ElthError(f"variants has {name}, and no entry of the grid names it")
            varied = self.variant(name)
            try:
                varied._refuse_idle()
            except ElthError as error:
                raise ElthError(f"in variants.{name}: {error}") from error
        return self

    @model_validator(mode="after")
    def _tickets_are_used(self) -> Experiment:
        used = {name for entry in self.grid for name in entry.ticket}
        for name in sorted(used - self.tickets.keys()):
            raise unknown("ticket under tickets", name, self.tickets)
        for name in self.tickets.keys() - used:
            raise ElthError(f"tickets names {name}, and no entry of the grid has ticket: {name}")
        for name in self.tickets:
            if not re.fullmatch(NAME, name):
                raise ElthError(f"'{name}' is no name of a ticket: take letters, digits, - and _")
        by_value: dict[Imported, str] = {}
        for name, ticket in self.tickets.items():
            if by_value.setdefault(ticket, name) != name:
                raise ElthError(f"tickets names one twice, {by_value[ticket]} and {name}")
        return self

    @model_validator(mode="after")
    def _rounds_exist(self) -> Experiment:
        prunings = self.prunings()
        for entry in self.grid:
            for name in entry.variants:
                last = prunings[name].rounds
                where = f" of variant {name}" if name else ""
                for k in entry.round if entry.round != "all" else ():
                    if k > last:
                        raise ElthError(
                            f"round {k} of method {entry.method[0]} is beyond the last one: "
                            f"pruning.rounds{where} is {last}"
                        )
        return self

    @model_validator(mode="after")
    def _ways_have_meaning(self) -> Experiment:
        prunings = self.prunings()
        for entry in self.grid:
            for name, method in product(entry.variants, entry.method):
                weights = prunings[name].weights
                if weights != "rewind" and not method_of(method).takes_any_weights:
                    where = f" of variant {name}" if name else ""
                    raise ElthError(
                        f"method {method} starts from the weights of the rewind point, and "
                        f"pruning.weights{where} is {weights}: it has a meaning for imp, for "
                        "reinit and for what needs no round of imp"
                    )
        return self

    def settings(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "pruning": self.pruning.plain(),
            "criteria": dict(self.criteria),
            "recipe": self.recipe.full(),
            "recipes": {name: recipe.full() for name, recipe in self.recipes.items()},
        }

    def variant(self, name: str) -> Experiment:
        """The experiment that a variant is; without a name, itself.

        Raises:
            ElthError: what the variant changes cannot be so.
        """
        if not name:
            return self
        changes = self.variants[name]
        try:
            if "recipe.base" in changes:
                raise ElthError("a recipe with another base is given whole, as recipe: {base: X}")
            varied = Settings.model_validate(patched(self.settings(), changes))
        except (ElthError, ValidationError) as error:
            raise ElthError(f"in variants.{name}: {_one_line(error)}") from error
        return self.model_copy(update={part: getattr(varied, part) for part in PARTS})

    def prunings(self) -> dict[str, Pruning]:
        """How tickets are found in each variant, by its name; in the experiment itself by none."""
        return {name: self.variant(name).pruning for name in ("", *self.variants)}

    def recipe_for(self, dataset: str) -> Recipe:
        """How networks are trained on a dataset."""
        return self.recipes.get(dataset, self.recipe)

    def cells(self) -> Iterator[Cell]:
        """Every combination that the grid asks for, seeds apart, in the order of the file."""
        prunings = self.prunings()
        for entry in self.grid:
            for variant, method, network, dataset in product(
                entry.variants, entry.method, entry.network, entry.dataset or (self.dataset,)
            ):
                moved = method_of(method).base == SOURCE
                for source, source_dataset, transform, ticket in product(
                    entry.source or ("",),
                    entry.source_dataset or ((self.dataset if moved else ""),),
                    entry.transform if moved else ("",),
                    entry.ticket or ("",),
                ):
                    for (k, target), noise in product(
                        entry.levels(method, prunings[variant]), entry.noise or (0,)
                    ):
                        yield Cell(
                            method=method,
                            network=network,
                            dataset=dataset,
                            source=source,
                            source_dataset=source_dataset,
                            transform=transform,
                            round=k,
                            target=target,
                            variant=variant,
                            noise=noise,
                            ticket=ticket,
                            keep=entry.keep is not None,
                        )

    @property
    def datasets(self) -> tuple[str, ...]:
        """What the cells, and the sources of their tickets, are trained on."""
        found: dict[str, None] = {}
        for cell in self.cells():
            found[cell.dataset] = None
            if cell.source_dataset and not cell.ticket:
                found[cell.source_dataset] = None
        return tuple(found)

    def resolved(self) -> str:
        """The whole experiment as YAML, defaults included."""
        idle = {part for part in ("plugins", "variants", "tickets") if not getattr(self, part)}
        hidden = {*PARTS, "grid", "analyses", "claims", "margin", "paper", *idle}
        plain = self.model_dump(mode="json", exclude=hidden)
        settings = self.settings()
        ahead = ("name", "description", "plugins", "dataset", "seeds", "variants")
        ordered = {name: plain.pop(name) for name in ahead if name in plain}
        ordered |= {name: settings.pop(name) for name in ("pruning", "criteria")} | plain
        if self.paper is not None:
            ordered["paper"] = self.paper.model_dump(mode="json", exclude_unset=True)
        ordered |= settings
        ordered["grid"] = [e.model_dump(mode="json", exclude_unset=True) for e in self.grid]
        if self.analyses:
            ordered["analyses"] = [one.plain() for one in self.analyses]
        if self.claims:
            ordered["claims"] = [one.plain() for one in self.claims]
        if self.margin != MARGIN:
            ordered["margin"] = self.margin
        return yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination that is asked for."""

    method: str
    network: str
    dataset: str
    source: str = ""
    source_dataset: str = ""
    transform: str = ""
    round: int
    target: str = ""
    """Exact sparsity, as ``0.9``, where it is not that of a whole round."""
    variant: str = ""
    """The patch of the experiment that holds for all that it needs; none as a rule."""
    noise: int = 0
    """Which twin it is; 0 is the cell itself."""
    ticket: str = ""
    """The name of the imported ticket from which its rounds are counted, if there is one."""
    keep: bool = False
    """Whether its trained weights are kept."""


def _one_line(error: ValidationError | ElthError) -> str:
    """Why some values cannot be so: where, what was expected, what was found."""
    if isinstance(error, ElthError):
        return str(error)
    details = error.errors()[0]
    where = ".".join(str(part) for part in details["loc"] if "[" not in str(part))
    if details["type"] == "extra_forbidden":
        fields = Pruning.model_fields if where.startswith("pruning") else RECIPE_MODEL.model_fields
        return str(unknown("key", where, [f"{where.rpartition('.')[0]}.{f}" for f in fields]))
    inner = details.get("ctx", {}).get("error")
    told = str(inner) if isinstance(inner, ElthError) else details["msg"]
    return f"{where}: {told}" if where else told


def _criterion_settings(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Check a criterion's settings; returns those that differ from the defaults.

    ``at`` is common to all: the weights that are scored, ``rewind`` (the default) or ``init``. Of a
    method of sparse training it is where that starts: ``init`` (the default) or ``rewind``.
    """
    usual, known = ("init", "method") if name in dynamic.METHODS else ("rewind", "criterion")
    if name not in dynamic.METHODS:
        criteria.options(name)  # refuses what is none
    settings = {
        key: as_number(value) if "e" in str(value).lower() else value
        for key, value in given.items()  # 1e-3: the quotes of any other number are meant
    }
    at = settings.pop("at", usual)
    if at not in ("rewind", "init"):
        raise ElthError(f"at of {known} {name} is rewind or init, found {at!r}")
    if name in dynamic.METHODS:
        checked = dynamic.method(name, settings).plain()
    else:
        checked = dict(criteria.check_settings(name, settings))
    return checked | ({"at": at} if at != usual else {})
