"""What of a plan is code from outside, and whether another process has the same."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from elth import criteria, data, elastic, networks, plugins
from elth.errors import ElthError
from elth.specs import Spec
from orchestrator.plan.stage import SHAPE, Stage, dataset_of, shape_of


@dataclass(frozen=True, kw_only=True)
class Outside:
    """Modules from outside, for processes that do the stages of a plan."""

    paths: tuple[str, ...] = ()
    """Those that are listed, as ``plugins.use`` takes them."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Of each module that stages name the digest of its files."""

    def plain(self) -> dict[str, object]:
        """As JSON values; ``take`` reads them."""
        here = [os.path.relpath(path) for path in self.paths]
        return {"paths": list(self.paths), "relative": here, "digests": dict(self.digests)}


def modules(stage: Stage) -> set[str]:
    """The modules from outside that a stage needs."""
    found = {
        networks.module(Spec.parse(stage.params["network"]).name),
        data.module(Spec.parse(dataset_of(stage)).name),
    }
    for step in stage.params.get("ticket", ()):
        found |= {criteria.module(step[kind]) for kind in ("criterion", "graft") if kind in step}
        if "call" in step:
            found.add(elastic.outside(step["call"])[2])
    return found - {""}


def outside(stages: Iterable[Stage]) -> Outside:
    """What stages need from outside, as it is in this process.

    Raises:
        ElthError: it is not found.
    """
    needed = set().union(*(modules(stage) for stage in stages))
    return Outside(
        paths=plugins.in_use(),
        digests={name: plugins.sources(name).digest for name in sorted(needed)},
    )


class CodeError(ElthError):
    """Code from outside that a stage was made by is not here, or is another by now."""


def check_code(stage: Stage) -> None:
    """Refuse to read a stage by other code than it was made by; nothing is wrong with it then.

    Raises:
        CodeError: its network or its dataset is not found, or is another.
    """
    network, wanted = stage.params["network"], stage.params.get("network_version")
    place = dataset_of(stage)
    try:
        if wanted and networks.version(Spec.parse(network).name) != wanted:
            raise CodeError(
                f"{stage.title} was made by another version of {network} than the one that is here"
            )
        if wanted:
            networks.blueprint(network, shape_of(stage))  # it may fail, as where it reads a file
        if SHAPE in stage.labels or Spec.parse(place).name in data.DATASETS:
            return  # nothing of it is needed
        if data.info(place).identity() != stage.params["dataset"]:
            raise CodeError(
                f"{stage.title} was made with another {place} than the one that is declared here"
            )
    except CodeError:
        raise
    except ElthError as error:
        raise CodeError(f"{stage.title} was made by code that is not here: {error}") from error


def take(told: Mapping[str, object]) -> None:
    """Let this process have what another one told of by ``Outside.plain``.

    Raises:
        ElthError: a module is not found here, cannot be imported, or is another than there.
    """
    paths, relative, digests = told["paths"], told["relative"], told["digests"]
    assert isinstance(paths, list)
    assert isinstance(relative, list)
    assert isinstance(digests, Mapping)
    for path, here in zip(paths, relative, strict=True):
        # A job that was submitted runs in a copy of its folder, on each machine its own.
        is_elsewhere = not Path(path).exists() and Path(here).exists()
        plugins.use([here if is_elsewhere else path])
    for name, digest in digests.items():
        own = plugins.sources(name)
        if own.digest != digest:
            raise ElthError(
                f"the module '{name}' ({plugins.find(name)}) is another here than where the "
                f"command was given (it is made of {', '.join(sorted(own.files))}): give all "
                "machines the same, by a folder that they share or by elth submit; or, if it was "
                "edited since, give the command again"
            )
        plugins.load(name)
