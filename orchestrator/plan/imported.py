"""Tickets that were found elsewhere, as stages of a kind of their own.

Such a stage is known by its tensors: its key holds their digest, the network and dataset that they
are of, and the iteration from which their training goes on. A person puts it into a store by
``elth ticket import``; nothing computes it, and it has no seed. In a plan it stands where a rewind
point stands else. Round 0 of its chain trains it as it is, and rounds are counted from there: the
next one prunes of the weights that its own mask keeps, and goes back to its weights.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence

from elth.counts import iterations_per_epoch
from elth.errors import ElthError
from elth.recipes import Recipe
from orchestrator.plan.stage import (
    IMPORTED,
    Stage,
    data_labels,
    dataset_of,
    info_of,
    named,
)


def imported(
    network: str, dataset: str, *, sha256: str, iteration: int, nonzeros: int, name: str = ""
) -> Stage:
    """The stage of an imported ticket.

    Args:
        network: the network that it is of.
        dataset: what it is trained on.
        sha256: of its weights and mask (``Ticket.digest``).
        iteration: how far its weights were trained.
        nonzeros: how many weights its mask keeps.
        name: what an experiment calls it.
    """
    info = info_of(dataset)
    return Stage(
        kind=IMPORTED,
        params={
            **named(network),
            "dataset": info.identity(),
            "sha256": sha256,
            "iteration": iteration,
            "nonzeros": nonzeros,
        },
        labels={
            "network": network,
            "method": "imported",
            "source": "",
            "transform": "",
            "round": 0,
            "dataset": info.title,
            **({"ticket": name} if name else {}),
            **data_labels(info),
        },
    )


def check_iteration(name: str, iteration: int, train_size: int, recipe: Recipe) -> None:
    """Refuse a ticket whose training would go on where that of the recipe is over.

    Raises:
        ElthError: with both iterations.
    """
    end = recipe.length.iterations(iterations_per_epoch(train_size, recipe))
    if iteration >= end:
        raise ElthError(
            f"the ticket {name} goes on from iteration {iteration}, which must come before the end "
            f"of the training {recipe.length} (iteration {end})"
        )


def how_to_import(stage: Stage) -> str:
    """The command by which a person puts an imported ticket into a store."""
    network, dataset = (shlex.quote(text) for text in (stage.params["network"], dataset_of(stage)))
    return (
        f"elth ticket import --network {network} --dataset {dataset} --iteration "
        f"{stage.params['iteration']} --weights FILE --mask FILE"
    )


def lacking(
    stages: Mapping[str, Stage], finished: Collection[str], known: Sequence[Stage], store: str
) -> list[str]:
    """A line for each imported ticket of a plan that a store does not have.

    Args:
        stages: those of the plan.
        finished: keys that are finished in the store.
        known: all stages of the store, among which others may be of the same tensors.
        store: its name.
    """
    told = []
    for key, stage in stages.items():
        if stage.is_given and key not in finished:
            digest = stage.params["sha256"]
            same = [one for one in known if one.is_given and one.params["sha256"] == digest]
            name = stage.labels.get("ticket", "")
            told.append(
                f"the store {store} lacks the ticket {name}{' ' if name else ''}(sha256 "
                f"{digest[:12]}, {_told(stage)}){_instead(stage, same)}: "
                f"{how_to_import(stage)} puts it there"
            )
    return told


def _told(stage: Stage) -> str:
    params = stage.params
    return (
        f"{params['network']} on {stage.labels['dataset']}, iteration {params['iteration']}, "
        f"{params['nonzeros']:,} non-zeros"
    )


def _instead(stage: Stage, same: Sequence[Stage]) -> str:
    """What the store has of the same tensors."""
    if not same:
        return ""
    if any(one.key == stage.key for one in same):
        return ", as it is set aside"
    return f", and has these tensors as {'; '.join(dict.fromkeys(map(_told, same)))}"
