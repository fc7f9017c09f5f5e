"""Tickets that were found elsewhere: their stages, what starts from them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from elth.errors import ElthError
from orchestrator import plan
from orchestrator.plan.comparing import Side, compare_experiments
from orchestrator.plan.costs import work
from orchestrator.plan.graph import Plan
from orchestrator.plan.imported import how_to_import, imported, lacking
from orchestrator.plan.stage import Stage, count_kinds, iterations
from tests.orchestrator.helpers import experiment, of_kind

DIGEST = "ab" * 32
THEIRS = {"sha256": DIGEST, "iteration": 1000, "nonzeros": 71_012}
"""Of 270,896 weights of ResNet-20."""


def _built(*grid: dict[str, Any], **changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "tickets": {"theirs": THEIRS},
        "pruning": {"rate": 0.2, "rounds": 2},
        "grid": [{"network": "resnet20", "ticket": "theirs", **entry} for entry in grid],
    }
    return plan.build(experiment(**(fields | changes)))


def _titles(built: Plan) -> list[str]:
    return [stage.title for stage in built.stages.values()]


def _refusal(*grid: dict[str, Any], **changes: Any) -> str:
    with pytest.raises((ElthError, ValidationError)) as caught:
        _built(*grid, **changes)
    return str(caught.value)


GOLDEN = {
    "resnet20 imported abababab, iteration 1000": (
        "7379a07aa018619da0f5603e004bf93fee806fa9081d683aae0413be0c5558d0"
    ),
    "resnet20 from theirs round 0, seed 0": (
        "c1740867e75debe0b6ef70087db01602911b01a2a3826b0db4d9f01575198770"
    ),
    "resnet20 from theirs round 1, seed 0": (
        "0294aa63302f086750dd2d40574f611cfc6feb3e9d11b87b59381eb121c5ed65"
    ),
    "resnet20 reinit from theirs round 0, seed 0": (
        "5537810faa5b98d5cd22ba64de6d7bfe0d33b73115c3bd83b42428f930b78f9f"
    ),
    "resnet32 <- resnet20 append from theirs round 0, seed 0": (
        "937576ab9e5f35661c89a951a653c8e140e84a651cd649ef1749fcecfb31d829"
    ),
}


@pytest.mark.parametrize("title", GOLDEN)
def test_golden_keys(title: str) -> None:
    moved = {"method": "ett", "source": "resnet20", "network": "resnet32"}
    built = _built({"method": "imp"}, {"method": "reinit"}, moved)
    assert {stage.title: key for key, stage in built.stages.items()}[title] == GOLDEN[title]


def test_rounds_are_counted_from_the_ticket_and_go_back_to_it() -> None:
    built = _built({"method": "imp"}, seeds=[0, 1])
    (start,) = of_kind(built, "imported")
    rounds = of_kind(built, "round")
    assert not of_kind(built, "rewind_point")
    assert [(s.labels["round"], s.labels["seed"]) for s in rounds] == [
        *((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))
    ]
    assert {s.labels["method"] for s in rounds} == {"imp"}
    assert "seed" not in start.labels
    assert "seed" not in start.params
    assert all(stage.parents[0] == start.key for stage in rounds)
    assert rounds[2].parents == (start.key, rounds[0].key)
    assert {iterations(stage)[0] for stage in rounds} == {1000}
    assert built.asked == tuple(stage.key for stage in rounds)
    assert work(start) == 0
    assert count_kinds(built.stages.values())["imported"] == 1
    assert built.alone() == (6, 12)


def test_other_methods_start_from_the_ticket_as_it_is_and_wait_for_no_round() -> None:
    moved = {"method": "ett", "source": "resnet20", "network": "resnet32"}
    built = _built({"method": ["reinit", "random", "shuffle_global"]}, moved)
    (start,) = of_kind(built, "imported")
    assert not of_kind(built, "round")
    assert [stage.parents for stage in of_kind(built, "retraining")] == [(start.key,)] * 4
    later = _built({"method": "reinit", "round": 1})
    (stage,) = of_kind(later, "retraining")
    assert stage.parents == (of_kind(later, "round")[-1].key,)


def test_a_ticket_that_stays_on_its_network_is_its_round() -> None:
    built = _built({"method": ["ett"], "source": "resnet20", "transform": "auto"})
    assert _titles(built)[1:] == ["resnet20 from theirs round 0, seed 0"]


def test_carried_to_another_dataset_it_is_trained_from_the_beginning() -> None:
    moved = {"source": "resnet20", "source_dataset": "cifar10", "dataset": "svhn"}
    built = _built({"method": "ett", **moved})
    (stage,) = of_kind(built, "retraining")
    assert iterations(stage)[0] == 0
    assert "start" not in stage.params


def test_the_iteration_is_where_training_goes_on() -> None:
    late = {**THEIRS, "iteration": 62_559}
    built = _built({"method": "imp"}, tickets={"theirs": late})
    assert iterations(of_kind(built, "round")[0]) == (62_559, 62_560)
    text = _refusal({"method": "imp"}, tickets={"theirs": {**late, "iteration": 62_560}})
    assert "goes on from iteration 62560" in text
    assert "160ep (iteration 62560)" in text


def test_an_exact_sparsity_comes_after_the_rounds_of_the_ticket() -> None:
    built = _built({"method": "imp", "sparsity": 0.8})
    last = list(built.stages.values())[-1]
    assert last.params["keep"] == 54_179
    assert _titles(built)[1:] == [
        *(f"resnet20 from theirs round {k}, seed 0" for k in (0, 1)),
        "resnet20 from theirs at 80 %, seed 0",
    ]
    text = _refusal({"method": "imp", "sparsity": 0.7})
    assert "the ticket theirs has 71,012: ask for more than 0.7379, or for round: 0" in text


def test_what_is_too_few_is_told_of_the_ticket() -> None:
    few = {"theirs": {**THEIRS, "nonzeros": 20}}
    built = _built({"method": "imp"}, tickets=few)
    assert "resnet20 on cifar10 from theirs: from round 0 on there are" in built.notes[0]
    text = _refusal({"method": "imp"}, tickets=few, pruning={"rate": 0.9, "rounds": 2})
    assert "resnet20 from theirs" in text


def test_chains_are_counted_before_they_are_built() -> None:
    tickets = {name: {**THEIRS, "iteration": number} for number, name in enumerate("abc")}
    text = _refusal(
        {"method": "imp", "ticket": list(tickets)},
        tickets=tickets,
        pruning={"rate": 0.2, "rounds": 40_000},
    )
    assert "about 120,006 stages (1 times 3 chains of up to 40,000 rounds" in text


def test_a_ticket_changes_no_key_beside_it() -> None:
    grid: list[dict[str, Any]] = [{"method": ["dense", "imp", "reinit"], "network": "resnet20"}]
    alone = plan.build(experiment(grid=grid)).stages
    entry = {"method": "imp", "network": "resnet20", "ticket": "theirs"}
    both = plan.build(experiment(tickets={"theirs": THEIRS}, grid=[*grid, entry])).stages
    assert alone.keys() < both.keys()
    assert all(stage.labels.get("ticket") for key, stage in both.items() if key not in alone)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"method": "dense"}, "method dense takes no ticket: it trains all weights; the ticket"),
        ({"method": "snip"}, "method snip takes no ticket: it prunes a dense network"),
        (
            {"method": "ett_snip_extra", "source": "resnet14"},
            "method ett_snip_extra takes no ticket: it takes weights of the target's",
        ),
        ({"method": "imp", "ticket": "thiers"}, "'thiers'; did you mean 'theirs'?"),
        ({"method": "imp", "ticket": []}, "tickets names theirs, and no entry of the grid has"),
    ],
)
def test_what_has_no_meaning_is_refused(entry: dict[str, Any], text: str) -> None:
    assert text in _refusal(entry)


@pytest.mark.parametrize(
    ("tickets", "text"),
    [
        ({"theirs": THEIRS, "again": THEIRS}, "tickets names one twice, theirs and again"),
        ({"a b": THEIRS}, "'a b' is no name of a ticket"),
        ({"theirs": {**THEIRS, "sha256": "ab"}}, "sha256"),
        ({"theirs": {**THEIRS, "nonzeros": 0}}, "nonzeros"),
        ({"theirs": {**THEIRS, "iteration": 1.5}}, "iteration"),
    ],
)
def test_tickets_that_are_none_are_refused(tickets: dict[str, Any], text: str) -> None:
    assert text in _refusal({"method": "imp", "ticket": list(tickets)}, tickets=tickets)


def test_two_experiments_differ_by_their_tickets() -> None:
    sides = []
    for digest in (DIGEST, "cd" * 32):
        given = {"theirs": {**THEIRS, "sha256": digest}}
        fields: dict[str, Any] = {"tickets": given, "pruning": {"rate": 0.2, "rounds": 1}}
        found = experiment(
            grid=[{"method": "imp", "network": "resnet20", "ticket": "theirs"}], **fields
        )
        sides.append(Side(name=digest, experiment=found, plan=plan.build(found)))
    told = compare_experiments(*sides)
    assert told.stages["imported"] == (0, 1, 1)
    assert told.fields[0].path == "tickets.theirs.sha256"
    assert [cells.title for cells in told.other] == [
        f"resnet20 from theirs round {k} on cifar10" for k in (0, 1)
    ]
    assert [why.path for why in told.other[0].why] == ["sha256"]


def test_ways_of_imp_go_on_from_it() -> None:
    """Each under a variant; the ticket is common to all of them."""
    ways: dict[str, dict[str, Any]] = {
        "trained": {"pruning.weights": "trained"},
        "repel": {"pruning.repel": 2.0},
        "shot": {"pruning.one_shot": True},
        "slow": {"recipe.length": "200ep"},
    }
    entry = {"method": ["imp", "reinit"], "variant": [*ways], "round": [0, 2]}
    built = _built(entry, variants=ways)
    (start,) = of_kind(built, "imported")
    assert not of_kind(built, "rewind_point")
    assert all(start.key in stage.parents for stage in of_kind(built, "round"))
    assert {iterations(stage)[0] for key, stage in built.stages.items() if key != start.key} == {
        1000
    }
    text = _refusal(entry | {"variant": "init"}, variants={"init": {"pruning.weights": "init"}})
    assert "the ticket theirs has weights of iteration 1000 alone" in text


def test_a_twin_of_it() -> None:
    built = _built({"method": "imp", "round": 0, "noise": [1, 2]})
    twins = of_kind(built, "round")
    assert [stage.params["noise"] for stage in twins] == [{"copy": 1}, {"copy": 2}]
    assert {iterations(stage)[0] for stage in twins} == {1000}


def _other(**changes: Any) -> Stage:
    given: dict[str, Any] = {**THEIRS, **changes}
    network = given.pop("network", "resnet20")
    return imported(network, "cifar10", **given)


def test_a_store_that_lacks_it_is_told_with_the_command() -> None:
    built = _built({"method": "imp"})
    (start,) = of_kind(built, "imported")
    assert start.key == _other().key
    assert lacking(built.stages, {start.key}, [start], "runs") == []
    (line,) = lacking(built.stages, (), [], "runs")
    assert line == (
        "the store runs lacks the ticket theirs (sha256 abababababab, resnet20 on cifar10, "
        f"iteration 1000, 71,012 non-zeros): {how_to_import(start)} puts it there"
    )
    assert how_to_import(start) == (
        "elth ticket import --network resnet20 --dataset cifar10 --iteration 1000 --weights FILE "
        "--mask FILE"
    )
    (line,) = lacking(built.stages, (), [_other(iteration=500, network="resnet32")], "runs")
    assert "and has these tensors as resnet32 on cifar10, iteration 500, 71,012 non-zeros" in line
    (line,) = lacking(built.stages, (), [start], "runs")
    assert ", as it is set aside: " in line
