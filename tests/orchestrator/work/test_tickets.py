"""From the results of parents to a ticket, and results as files, on a chain made by hand."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from elth import controls, criteria, masks
from elth.data import Dataset, info
from elth.data import load as load_dataset
from elth.errors import ElthError
from elth.networks import build
from elth.recipes import Recipe
from elth.specs import Spec
from elth.streams import stream
from elth.tensors import read_tensors, write_tensors
from elth.tickets import Ticket
from elth.training import Epoch, Training
from orchestrator import plan
from orchestrator.experiment.methods import METHODS, STEPS
from orchestrator.plan.graph import Plan
from orchestrator.plan.stage import Stage
from orchestrator.store.result import Result, read, write
from orchestrator.work.tickets import _STEPS, ticket_of
from orchestrator.work.training import Engines, train
from tests.orchestrator.helpers import (
    RECIPE,
    TINY,
    TINY_DEEPER,
    of_kind,
    rewind_result,
    round_result,
    tiny,
)

SHAPE = info("digits").shape
TOTAL = 36 + 4 * 144 + (288 + 3 * 576 + 32) + (1152 + 3 * 2304 + 128) + 160
"""Prunable weights of ``TINY`` for digits: stem, three stages, head."""

GRID: list[dict[str, Any]] = [
    {"method": ["imp", "reinit", "random", "magnitude"], "network": TINY},
    {"method": "ett", "source": TINY, "network": TINY_DEEPER, "transform": "append"},
]


def test_every_step_that_a_method_may_have_can_be_done() -> None:
    assert STEPS.keys() <= _STEPS.keys()


@pytest.fixture(scope="module")
def built() -> Plan:
    """A chain of two rounds with everything that hangs on it."""
    return plan.build(tiny("stages", grid=GRID))


@pytest.fixture(scope="module")
def results(built: Plan) -> dict[str, tuple[Stage, Result]]:
    """Results made by hand: 7,000 weights of the first round, 3,500 of the second."""
    start = of_kind(built, "rewind_point")[0]
    dense, first, second = of_kind(built, "round")
    found = [rewind_result(), round_result(TOTAL), round_result(7000), round_result(3500, seed=2)]
    stages_ = (start, dense, first, second)
    return {stage.key: (stage, made) for stage, made in zip(stages_, found, strict=True)}


def _method(built: Plan, method: str) -> Stage:
    return next(s for s in of_kind(built, "retraining") if s.labels["method"] == method)


def _same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[n], right[n]) for n in left)


def _start(results: dict[str, tuple[Stage, Result]]) -> dict[str, Tensor]:
    rewind = next(iter(results.values()))[1].rewind
    assert rewind is not None
    return rewind


def _mask(results: dict[str, tuple[Stage, Result]], k: int) -> dict[str, Tensor]:
    mask = list(results.values())[k + 1][1].mask
    assert mask is not None
    return mask


# Tickets


def test_the_dense_round_trains_everything_from_the_rewind_point(
    built: Plan, results: dict[str, tuple[Stage, Result]]
) -> None:
    ticket = ticket_of(of_kind(built, "round")[0], results.__getitem__)
    assert (ticket.network, ticket.shape) == (Spec.parse(TINY), SHAPE)
    assert ticket.nonzeros == masks.total(ticket.mask) == TOTAL
    assert _same(ticket.rewind, _start(results))
    assert ticket.origin["history"] == [{"imp_round": 0}]
    assert ticket.origin["seed"] == 0
    assert ticket.origin["dataset"]["name"] == "digits"


@pytest.mark.parametrize(("k", "kept"), [(1, TOTAL // 2), (2, 3500)])
def test_a_round_keeps_the_exact_count_of_the_one_before(
    built: Plan, results: dict[str, tuple[Stage, Result]], k: int, kept: int
) -> None:
    ticket = ticket_of(of_kind(built, "round")[k], results.__getitem__)
    before = list(results.values())[k][1]
    assert before.mask is not None
    assert before.trained is not None
    assert ticket.nonzeros == kept
    assert all(bool((before.mask[n] | ~m).all()) for n, m in ticket.mask.items())  # only shrinks
    # The weights that stay are the largest of those that were trained, the weights the rewound.
    trained = torch.cat([before.trained[n].abs().flatten() for n in ticket.mask])
    stays = torch.cat([m.flatten() for m in ticket.mask.values()])
    assert float(trained[stays].min()) >= float(trained[~stays].max())
    assert _same(ticket.rewind, _start(results))
    assert ticket.origin["history"] == [{"imp_round": k}]


def test_a_round_leaves_unpruned_layers_whole() -> None:
    chain = list(
        plan.build(tiny("mlp", grid=[{"method": "imp", "network": "mlp1"}])).stages.values()
    )
    total = 64 * 300 + 300 * 100 + 100 * 10
    results = {
        chain[0].key: (chain[0], rewind_result("mlp1")),
        chain[1].key: (chain[1], round_result(total, "mlp1")),
    }
    ticket = ticket_of(chain[2], results.__getitem__)
    assert bool(ticket.mask["head.weight"].all())
    assert ticket.nonzeros == total // 2


def test_reinit_keeps_the_mask_and_draws_all_else(
    built: Plan, results: dict[str, tuple[Stage, Result]]
) -> None:
    ticket = ticket_of(_method(built, "reinit"), results.__getitem__)
    assert _same(ticket.mask, _mask(results, 2))
    assert _same(ticket.rewind, controls.reinit(Spec.parse(TINY), SHAPE, 0))
    assert not torch.equal(ticket.rewind["conv1.weight"], _start(results)["conv1.weight"])
    assert ticket.origin["history"] == [{"imp_round": 2}, {"reinit": "all"}]


def test_random_keeps_the_weights_and_the_count_of_each_layer(
    built: Plan, results: dict[str, tuple[Stage, Result]]
) -> None:
    ticket = ticket_of(_method(built, "random"), results.__getitem__)
    mask = _mask(results, 2)
    assert _same(ticket.rewind, _start(results))
    assert not _same(ticket.mask, mask)
    assert {n: int(m.sum()) for n, m in ticket.mask.items()} == {
        n: int(m.sum()) for n, m in mask.items()
    }


def test_magnitude_keeps_the_largest_weights_of_the_rewind_point(
    built: Plan, results: dict[str, tuple[Stage, Result]]
) -> None:
    stage = _method(built, "magnitude")
    start = stage.parents[0]
    ticket = ticket_of(stage, {start: results[start]}.__getitem__)  # needs nothing else
    assert ticket.nonzeros == TOTAL // 4
    rewind = _start(results)
    weights = torch.cat([rewind[n].abs().flatten() for n in ticket.mask])
    stays = torch.cat([m.flatten() for m in ticket.mask.values()])
    assert float(weights[stays].min()) >= float(weights[~stays].max())
    assert ticket.origin["history"] == [{"criterion": "magnitude", "nonzeros": TOTAL // 4}]


def test_a_transformation_moves_weights_and_masks(
    built: Plan, results: dict[str, tuple[Stage, Result]]
) -> None:
    ticket = ticket_of(_method(built, "ett"), results.__getitem__)
    mask, rewind = _mask(results, 2), _start(results)
    assert str(ticket.network) == TINY_DEEPER
    for unit in (1, 2):
        name = f"layer2.{unit}.conv1.weight"
        assert torch.equal(ticket.mask[name], mask["layer2.1.conv1.weight"])
        assert torch.equal(ticket.rewind[name], rewind["layer2.1.conv1.weight"])
    history = ticket.origin["history"]
    assert history[0] == {"imp_round": 2}
    assert (history[1]["source"], history[1]["target"]) == (TINY, TINY_DEEPER)
    assert history[1]["source_nonzeros"] == 3500


def test_steps_are_done_in_their_order(
    built: Plan, results: dict[str, tuple[Stage, Result]]
) -> None:
    ett = _method(built, "ett")
    shuffle = {"shuffle": "layerwise", "version": 2}
    steps = [shuffle, *ett.params["ticket"], {"reinit": "all"}]
    stage = Stage(
        kind="retraining",
        params={**ett.params, "ticket": steps},
        parents=ett.parents,
        labels=ett.labels,
    )
    ticket = ticket_of(stage, results.__getitem__)
    shuffled = controls.shuffle_layerwise(_mask(results, 2), 0)
    assert torch.equal(ticket.mask["layer1.2.conv2.weight"], shuffled["layer1.1.conv2.weight"])
    assert _same(ticket.rewind, controls.reinit(Spec.parse(TINY_DEEPER), SHAPE, 0))
    assert [next(iter(step)) for step in ticket.origin["history"]] == [
        "imp_round",
        "shuffle",
        "transform",
        "reinit",
    ]


def test_the_keys_of_a_step_are_in_any_order(
    built: Plan, results: dict[str, tuple[Stage, Result]]
) -> None:
    """As they come back from a store that sorts them."""
    ett = _method(built, "ett")
    turned = {"nonzeros": 2000, "criterion": "magnitude", "at": "init"}
    orders = [turned, dict(sorted(turned.items())), dict(reversed(turned.items()))]
    assert [next(iter(step)) for step in orders] == ["nonzeros", "at", "at"]
    tickets = []
    for step in orders:
        steps = [*({"to": s["to"], "transform": s["transform"]} for s in ett.params["ticket"])]
        stage = Stage(
            kind="retraining",
            params={**ett.params, "ticket": [*steps, step]},
            parents=ett.parents,
            labels=ett.labels,
        )
        tickets.append(ticket_of(stage, results.__getitem__))
    initial = build(TINY_DEEPER, SHAPE, generator=stream(0, "init"))
    moved = ticket_of(ett, results.__getitem__)
    expected = criteria.prune(
        "magnitude", initial, moved.mask, 2000, data=None, seed=0, shape=SHAPE
    )
    for ticket in tickets:
        assert ticket.nonzeros == 2000
        assert _same(ticket.mask, expected)
        assert _same(ticket.rewind, moved.rewind)
        assert ticket.origin["history"][-1] == turned


@pytest.mark.parametrize("at", ["at", "criterion"])
def test_a_criterion_at_initialisation_whatever_key_comes_first(
    at: str, built: Plan, results: dict[str, tuple[Stage, Result]]
) -> None:
    magnitude = _method(built, "magnitude")
    step = {"at": "init", "criterion": "magnitude", "nonzeros": 2000}
    step = {at: step[at], **step}
    params = {**magnitude.params, "ticket": [step]}
    stage = Stage(
        kind="retraining", params=params, parents=magnitude.parents, labels=magnitude.labels
    )
    ticket = ticket_of(stage, results.__getitem__)
    initial = build(TINY, SHAPE, generator=stream(0, "init"))
    expected = criteria.prune(
        "magnitude", initial, masks.ones(initial), 2000, data=None, seed=0, shape=SHAPE
    )
    assert _same(ticket.mask, expected)


def test_a_parent_without_what_is_needed_is_named(
    built: Plan, results: dict[str, tuple[Stage, Result]]
) -> None:
    first = of_kind(built, "round")[1]
    dense = first.parents[1]
    stage, whole = results[dense]
    results = {**results, dense: (stage, Result(mask=whole.mask))}
    with pytest.raises(
        ElthError, match=r"the result of resnet14\(width=4\) dense round 0, seed 0 "
    ):
        ticket_of(first, results.__getitem__)


def test_making_a_ticket_changes_no_parent(
    built: Plan, results: dict[str, tuple[Stage, Result]]
) -> None:
    before = {n: t.clone() for n, t in _start(results).items()}
    mask = {n: t.clone() for n, t in _mask(results, 2).items()}
    for stage in of_kind(built, "retraining"):
        ticket_of(stage, results.__getitem__)
    assert _same(before, _start(results))
    assert _same(mask, _mask(results, 2))


# Steps

Results = dict[str, tuple[Stage, Result]]
DOUBLE = "resnet14(width=8)"
LARGER = "digits(size=16)"


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """The digits, read once."""
    return load_dataset("digits")


def _stage(entry: dict[str, Any], **changes: Any) -> Stage:
    """The stage that a cell of the last round asks for; its parents are among ``everything``."""
    found = plan.build(tiny("steps", grid=[{"network": TINY, "round": 2, **entry}], **changes))
    return found.stages[found.asked[-1]]


def _moved(method: str, **changes: Any) -> Stage:
    return _stage({"method": method, "source": TINY, "network": TINY_DEEPER}, **changes)


@pytest.fixture(scope="module")
def everything(results: Results) -> Results:
    """The chain made by hand, and a rewind point of the deeper network."""
    deeper = plan.build(tiny("deeper", grid=[{"method": "dense", "network": TINY_DEEPER}]))
    start = of_kind(deeper, "rewind_point")[0]
    return {**results, start.key: (start, rewind_result(TINY_DEEPER, seed=8))}


@pytest.fixture(scope="module")
def ett(everything: Results) -> Ticket:
    """The ticket of the second round, moved: each stage is 0 1 1."""
    return ticket_of(_moved("ett"), everything.__getitem__)


def _kept(ticket: Ticket) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in ticket.mask.items()}


def _is_extra(name: str) -> bool:
    """Whether a tensor is of the third unit of a stage, which is filled by the second again."""
    return name.split(".")[1] == "2"


CRITERIA = [name for name, method in METHODS.items() if method.base == "rewind"]
WITH_DATA = ["snip", "grasp", "grasp_absolute"]


@pytest.mark.parametrize("method", CRITERIA)
def test_a_criterion_prunes_the_rewind_point_to_the_exact_count(
    method: str, everything: Results, digits: Dataset
) -> None:
    stage = _stage({"method": method})
    start = stage.parents[0]
    load = {start: everything[start]}.__getitem__  # needs nothing else
    ticket = ticket_of(stage, load, data=digits if method in WITH_DATA else None)
    rewind = _start(everything)
    network = build(TINY, SHAPE, generator=stream(0, "init"))
    network.load_state_dict(rewind)
    expected = criteria.prune(
        method, network, masks.ones(network), TOTAL // 4, data=digits, seed=0, shape=SHAPE
    )
    assert ticket.nonzeros == TOTAL // 4
    assert _same(ticket.mask, expected)
    assert _same(ticket.rewind, rewind)
    version = {"version": 2} if method.startswith("grasp") else {}
    assert ticket.origin["history"] == [{"criterion": method, **version, "nonzeros": TOTAL // 4}]


@pytest.mark.parametrize("method", ["grasp", "grasp_absolute"])
@pytest.mark.parametrize("halves", ["", "joint"])
def test_a_stage_of_the_first_version_of_grasp_is_what_it_was(
    method: str, halves: str, everything: Results, digits: Dataset
) -> None:
    """It named no version, and took the halves apart where it did not say joint."""
    now = _stage({"method": method})
    step = {"criterion": method, "nonzeros": TOTAL // 4, **({"halves": halves} if halves else {})}
    then = dataclasses.replace(now, params={**now.params, "ticket": [step]})
    made, today = (ticket_of(s, everything.__getitem__, data=digits) for s in (then, now))
    spelled = _stage({"method": method}, criteria={method: {"halves": halves or "disjoint"}})
    expected = ticket_of(spelled, everything.__getitem__, data=digits)
    assert _same(made.mask, expected.mask)
    assert _same(made.mask, today.mask) == (halves == "joint")
    assert made.origin["history"] == [step]


@pytest.mark.parametrize("method", [*WITH_DATA, "ett_snip_extra"])
def test_a_criterion_that_looks_at_images_needs_them(method: str, everything: Results) -> None:
    stage = _moved(method) if method.startswith("ett") else _stage({"method": method})
    message = f"the mask of {re.escape(stage.title)} needs the dataset to be made"
    with pytest.raises(ElthError, match=message):
        ticket_of(stage, everything.__getitem__)


@pytest.mark.parametrize("method", CRITERIA)
def test_a_known_mask_is_not_computed_again(method: str, everything: Results) -> None:
    known = round_result(TOTAL // 4, seed=11).mask
    assert known is not None
    stage = _stage({"method": method})
    ticket = ticket_of(stage, everything.__getitem__, known=known)
    assert _same(ticket.mask, known)
    assert _same(ticket.rewind, _start(everything))


def test_settings_of_a_criterion_reach_it(everything: Results, digits: Dataset) -> None:
    given: list[dict[str, Any]] = [{"samples": 7, "mode": "train"}, {}]
    stage = _stage({"method": "snip"}, criteria={"snip": given[0]})
    ticket = ticket_of(stage, everything.__getitem__, data=digits)
    network = build(TINY, SHAPE, generator=stream(0, "init"))
    network.load_state_dict(_start(everything))
    expected, other = (
        criteria.snip.prune(
            network, masks.ones(network), TOTAL // 4, data=digits, seed=0, **settings
        )
        for settings in given
    )
    assert _same(ticket.mask, expected)
    assert not _same(ticket.mask, other)


def test_weights_may_be_scored_as_they_were_at_initialisation(everything: Results) -> None:
    stage = _stage({"method": "magnitude"}, criteria={"magnitude": {"at": "init"}})
    start = stage.parents[0]
    trained = rewind_result(seed=5)  # other weights than the initial ones of seed 0
    ticket = ticket_of(stage, {start: (everything[start][0], trained)}.__getitem__)
    assert trained.rewind is not None
    assert _same(ticket.rewind, trained.rewind)  # it is trained from the rewind point
    initial = build(TINY, SHAPE, generator=stream(0, "init")).state_dict()
    weights = torch.cat([initial[name].abs().flatten() for name in ticket.mask])
    stays = torch.cat([mask.flatten() for mask in ticket.mask.values()])
    assert int(stays.sum()) == TOTAL // 4
    assert float(weights[stays].min()) >= float(weights[~stays].max())


def test_a_mask_is_shuffled_over_all_layers(everything: Results) -> None:
    ticket = ticket_of(_stage({"method": "shuffle_global"}), everything.__getitem__)
    mask = _mask(everything, 2)
    assert ticket.nonzeros == masks.nonzeros(mask) == 3500
    assert _kept(ticket) != {name: int(m.sum()) for name, m in mask.items()}
    assert _same(ticket.rewind, _start(everything))


def test_a_shuffle_over_all_layers_leaves_unpruned_ones_whole() -> None:
    grid = [{"method": "shuffle_global", "network": "mlp1", "round": 1}]
    built = plan.build(tiny("mlp", grid=grid))
    start, _, first, stage = built.stages.values()
    made = round_result(9000, "mlp1").mask
    assert made is not None
    made["head.weight"] = torch.ones_like(made["head.weight"])
    results = {start.key: (start, rewind_result("mlp1")), first.key: (first, Result(mask=made))}
    ticket = ticket_of(stage, results.__getitem__)
    assert bool(ticket.mask["head.weight"].all())
    assert ticket.nonzeros == masks.nonzeros(made)
    assert not torch.equal(ticket.mask["stem.weight"], made["stem.weight"])


def test_a_moved_mask_with_weights_drawn_anew(everything: Results, ett: Ticket) -> None:
    ticket = ticket_of(_moved("ett_reinit"), everything.__getitem__)
    assert _same(ticket.mask, ett.mask)
    assert _same(ticket.rewind, controls.reinit(Spec.parse(TINY_DEEPER), SHAPE, 0))
    assert ticket.origin["history"] == [*ett.origin["history"], {"reinit": "all"}]


def test_moved_weights_with_a_random_mask(everything: Results, ett: Ticket) -> None:
    ticket = ticket_of(_moved("ett_random"), everything.__getitem__)
    assert _same(ticket.rewind, ett.rewind)
    assert _kept(ticket) == _kept(ett)
    assert not torch.equal(ticket.mask["layer3.1.conv1.weight"], ett.mask["layer3.1.conv1.weight"])


def test_weights_and_mask_both_drawn_anew(everything: Results, ett: Ticket) -> None:
    ticket = ticket_of(_moved("ett_reinit_random"), everything.__getitem__)
    assert _same(ticket.mask, controls.shuffle_layerwise(ett.mask, 0))
    assert _same(ticket.rewind, controls.reinit(Spec.parse(TINY_DEEPER), SHAPE, 0))
    steps = [{"reinit": "all"}, {"shuffle": "layerwise", "version": 2}]
    assert ticket.origin["history"] == [*ett.origin["history"], *steps]


def test_only_masks_of_replicated_units_are_shuffled(everything: Results, ett: Ticket) -> None:
    ticket = ticket_of(_moved("ett_random_extra"), everything.__getitem__)
    assert _same(ticket.rewind, ett.rewind)
    assert _kept(ticket) == _kept(ett)
    changed = {name for name in ett.mask if not torch.equal(ticket.mask[name], ett.mask[name])}
    extra = {f"layer{stage}.2.conv{conv}.weight" for stage in (1, 2, 3) for conv in (1, 2)}
    assert changed == extra
    assert ticket.origin["history"][-1] == {"shuffle": "replicated", "version": 2}


def test_a_graft_keeps_the_source_units_and_the_count(
    everything: Results, ett: Ticket, digits: Dataset
) -> None:
    stage = _moved("ett_snip_extra")
    ticket = ticket_of(stage, everything.__getitem__, data=digits)
    own = everything[stage.parents[1]][1].rewind
    assert own is not None
    for name, tensor in ticket.rewind.items():
        assert torch.equal(tensor, (own if _is_extra(name) else ett.rewind)[name]), name
    old = {name: mask for name, mask in ett.mask.items() if not _is_extra(name)}
    assert _same({name: ticket.mask[name] for name in old}, old)
    # As many weights as in the moved ticket, but those that SNIP keeps, over all extra units.
    assert ticket.nonzeros == ett.nonzeros
    network = build(TINY_DEEPER, SHAPE, generator=stream(0, "init"))
    network.load_state_dict(ticket.rewind)
    whole = {name: mask | _is_extra(name) for name, mask in ett.mask.items()}
    expected = criteria.snip.prune(
        network, whole, ett.nonzeros, data=digits, seed=0, unpruned=list(old)
    )
    assert _same(ticket.mask, expected)
    assert _kept(ticket) != _kept(ett)
    assert ticket.origin["history"][-1] == {"graft": "snip"}


def test_a_graft_with_a_known_mask_needs_no_images(everything: Results, ett: Ticket) -> None:
    stage = _moved("ett_snip_extra")
    known = controls.shuffle_layerwise(ett.mask, 4)
    ticket = ticket_of(stage, everything.__getitem__, known=known)
    own = everything[stage.parents[1]][1].rewind
    assert own is not None
    assert _same(ticket.mask, known)
    name = "layer2.2.conv1.weight"
    assert torch.equal(ticket.rewind[name], own[name])


def test_settings_of_a_criterion_reach_the_graft(everything: Results, digits: Dataset) -> None:
    plain, other = (
        ticket_of(_moved("ett_snip_extra", criteria=settings), everything.__getitem__, data=digits)
        for settings in ({}, {"snip": {"samples": 7}})
    )
    assert other.nonzeros == plain.nonzeros
    assert not _same(other.mask, plain.mask)
    assert other.origin["history"][-1] == {"graft": "snip", "samples": 7}


def test_steps_on_replicated_units_need_a_plan_that_makes_some(everything: Results) -> None:
    stage = _stage({"method": "shuffle_global"})
    params = {**stage.params, "ticket": [{"shuffle": "replicated"}]}
    lost = Stage(kind=stage.kind, params=params, parents=stage.parents, labels=stage.labels)
    with pytest.raises(ElthError, match="is about replicated units, and no plan makes any"):
        ticket_of(lost, everything.__getitem__)


def test_a_change_of_width(everything: Results) -> None:
    entry = {"method": "ett", "source": TINY, "network": DOUBLE, "transform": "double"}
    ticket = ticket_of(_stage(entry), everything.__getitem__)
    mask, rewind = _mask(everything, 2), _start(everything)
    assert str(ticket.network) == DOUBLE
    name = "layer2.1.conv1.weight"
    assert ticket.mask[name].shape == (16, 16, 3, 3)
    assert torch.equal(ticket.mask[name][:8, 8:], mask[name])
    assert torch.equal(ticket.rewind[name][8:, :8], rewind[name] / 2)
    assert ticket.origin["history"][-1]["width"] == "double"
    noisy = ticket_of(_stage({**entry, "transform": "double:gaussian"}), everything.__getitem__)
    assert _same(noisy.mask, ticket.mask)
    assert not torch.equal(noisy.rewind[name], ticket.rewind[name])


@pytest.mark.parametrize("network", [TINY, TINY_DEEPER])
def test_a_ticket_on_another_dataset_has_a_fresh_dense_head(
    network: str, everything: Results, ett: Ticket
) -> None:
    entry = {"method": "ett", "source": TINY, "source_dataset": "digits", "network": network}
    recipe = {**RECIPE, "length": "3ep"}
    stage = _stage({**entry, "dataset": LARGER}, recipes={LARGER: recipe})
    ticket = ticket_of(stage, everything.__getitem__)
    shape = info(LARGER).shape
    assert (str(ticket.network), ticket.shape) == (network, shape)
    assert bool(ticket.mask["fc.weight"].all())
    fresh = build(network, shape, generator=stream(0, "head")).state_dict()
    before = ett if network == TINY_DEEPER else None
    mask = before.mask if before else _mask(everything, 2)
    rewind = before.rewind if before else _start(everything)
    assert not bool(mask["fc.weight"].all())
    for name, tensor in ticket.rewind.items():
        assert torch.equal(tensor, (fresh if name.startswith("fc.") else rewind)[name]), name
    rest = [name for name in mask if name != "fc.weight"]
    assert _same({n: ticket.mask[n] for n in rest}, {n: mask[n] for n in rest})
    # It is a ticket of the new dataset; its history tells of the old one.
    assert ticket.origin["dataset"] == info(LARGER).identity()
    assert ticket.origin["recipe"]["length"] == "3ep"
    assert ticket.origin["history"][-1] == {"move": "fresh head", "classes": 10}
    # It is trained from the beginning, as plan.iterations says of its stage.
    assert (ticket.origin["start"], plan.iterations(stage)) == (0, (0, 63))


def test_a_last_smaller_round_keeps_what_the_sparsity_says(everything: Results) -> None:
    # Round 1 keeps 5,506 of 11,012 and round 2 2,753: 60 % lies between.
    stage = _stage({"method": "imp", "round": [], "sparsity": 0.6})
    assert TOTAL == 11_012
    ticket = ticket_of(stage, everything.__getitem__)
    before = everything[stage.parents[1]][1]
    assert before.mask is not None
    assert before.trained is not None
    assert ticket.nonzeros == 4404
    assert all(bool((before.mask[n] | ~m).all()) for n, m in ticket.mask.items())
    trained = torch.cat([before.trained[n].abs().flatten() for n in ticket.mask])
    stays = torch.cat([m.flatten() for m in ticket.mask.values()])
    assert float(trained[stays].min()) >= float(trained[~stays].max())
    assert _same(ticket.rewind, _start(everything))


# Training


def _run(
    stage: Stage, ticket: Ticket | None, data: Dataset, engines: Engines
) -> tuple[list[Epoch], Result]:
    epochs = []
    training = train(stage, ticket, data, engines.get(stage, data, compile=False))
    while True:
        try:
            epochs.append(next(training))
        except StopIteration as end:
            return epochs, end.value


def test_training_stops_and_goes_on_at_the_rewind_point(built: Plan, digits: Dataset) -> None:
    engines = Engines()
    start, dense = of_kind(built, "rewind_point")[0], of_kind(built, "round")[0]
    epochs, rewound = _run(start, None, digits, engines)
    assert [(epoch.epoch, epoch.step) for epoch in epochs] == [(1, 21)]
    assert (rewound.mask, rewound.trained) == (None, None)
    ticket = ticket_of(dense, {start.key: (start, rewound)}.__getitem__)
    epochs, trained = _run(dense, ticket, digits, engines)
    assert [(epoch.epoch, epoch.step) for epoch in epochs] == [(2, 42)]
    assert trained.rewind is None
    assert trained.mask is ticket.mask
    # The same as a training by elth alone, on a network of its own.
    recipe: Recipe = dense.recipe
    alone = Training(
        ticket.make_network(),
        digits,
        recipe,
        seed=0,
        state=ticket.rewind,
        mask=ticket.mask,
        start=21,
    )
    assert list(alone) == epochs
    assert trained.trained is not None
    assert _same(trained.trained, alone.state())


def test_a_network_that_is_used_again_leaves_no_trace(built: Plan, digits: Dataset) -> None:
    start = of_kind(built, "rewind_point")[0]
    engines = Engines()
    _, fresh = _run(start, None, digits, engines)
    engine = engines.get(start, digits, compile=False)
    for tensor in engine.network.state_dict().values():
        tensor.fill_(7)
    _, again = _run(start, None, digits, engines)
    assert fresh.rewind is not None
    assert again.rewind is not None
    assert _same(fresh.rewind, again.rewind)
    assert list(engines.made.values()) == [engine]


def test_an_engine_is_of_one_batch_of_evaluation(built: Plan) -> None:
    """Compiled code is of one size: else the last bits would tell which dataset was before."""
    engines, start = Engines(), of_kind(built, "rewind_point")[0]
    found = {
        id(engines.get(start, load_dataset(name), compile=False))
        for name in ("digits", "digits(hold_out=300)", "digits")
    }
    assert len(found) == len(engines.made) == 2


def test_a_process_keeps_few_engines(digits: Dataset) -> None:
    engines, made = Engines(), []
    for length in range(2, 12):
        recipe = {**RECIPE, "length": f"{length}ep", "milestones": []}
        stage = next(iter(plan.build(tiny("many", recipe=recipe)).stages.values()))
        made.append(engines.get(stage, digits, compile=False))
        assert engines.get(stage, digits, compile=False) is made[-1]
    assert list(engines.made.values()) == made[2:]


def test_a_rewind_point_at_initialisation_is_the_initial_weights(digits: Dataset) -> None:
    recipe = {**RECIPE, "length": "1ep", "rewind": "0ep", "milestones": []}
    start = next(iter(plan.build(tiny("init", recipe=recipe)).stages.values()))
    epochs, result = _run(start, None, digits, Engines())
    assert epochs == []
    assert result.rewind is not None
    initial = rewind_result(seed=0).rewind
    assert initial is not None
    assert _same(result.rewind, initial)


# Files


def test_a_rewind_point_is_written_whole(built: Plan, tmp_path: Path) -> None:
    start, result = of_kind(built, "rewind_point")[0], rewind_result()
    write(result, tmp_path, keep_weights=False)
    assert [path.name for path in tmp_path.iterdir()] == ["rewind.safetensors"]
    again = read(start, tmp_path)
    assert again.rewind is not None
    assert result.rewind is not None
    assert _same(again.rewind, result.rewind)
    assert (again.mask, again.trained) == (None, None)


def test_of_a_round_only_the_weights_that_are_left_are_written(built: Plan, tmp_path: Path) -> None:
    stage, result = of_kind(built, "round")[2], round_result(500)
    write(result, tmp_path, keep_weights=True)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert result.trained is not None
    rest = sum(
        tensor.numel() * tensor.element_size()
        for name, tensor in result.trained.items()
        if name not in (result.mask or {})
    )
    names = 200 * len(result.trained)
    assert TOTAL / 8 < sizes["mask.safetensors"] < TOTAL / 8 + names
    assert 4 * 500 + rest < sizes["trained.safetensors"] < 4 * 500 + rest + names < 4 * TOTAL
    again = read(stage, tmp_path)
    assert again.mask is not None
    assert again.trained is not None
    assert result.mask is not None
    assert _same(again.mask, result.mask)
    assert _same(again.trained, result.trained)
    assert list(again.mask) == list(result.mask)


def test_trained_weights_are_written_on_request(built: Plan, tmp_path: Path) -> None:
    write(round_result(500), tmp_path, keep_weights=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mask.safetensors"]
    again = read(_method(built, "reinit"), tmp_path)
    assert again.mask is not None
    assert again.trained is None


@pytest.mark.parametrize("name", ["mask", "trained", "rewind"])
def test_a_flipped_bit_is_found(built: Plan, tmp_path: Path, name: str) -> None:
    stage = of_kind(built, "rewind_point" if name == "rewind" else "round")[0]
    write(round_result(500), tmp_path, keep_weights=True)
    write(rewind_result(), tmp_path, keep_weights=True)
    path = tmp_path / f"{name}.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ElthError, match=f"{name}.safetensors is damaged: its checksum is not"):
        read(stage, tmp_path)


@pytest.mark.parametrize("name", ["mask", "trained", "rewind"])
def test_a_truncated_file_is_found(built: Plan, tmp_path: Path, name: str) -> None:
    stage = of_kind(built, "rewind_point" if name == "rewind" else "round")[0]
    write(round_result(500), tmp_path, keep_weights=True)
    write(rewind_result(), tmp_path, keep_weights=True)
    path = tmp_path / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ElthError, match=f"{name}.safetensors is no whole safetensors file"):
        read(stage, tmp_path)


def test_a_missing_file_is_found(built: Plan, tmp_path: Path) -> None:
    for kind in ("rewind_point", "round"):
        with pytest.raises(ElthError, match="there is no file"):
            read(of_kind(built, kind)[0], tmp_path)


def test_files_of_another_network_are_refused(built: Plan, tmp_path: Path) -> None:
    write(rewind_result(TINY_DEEPER), tmp_path, keep_weights=True)
    write(round_result(500, "resnet14(width=8)"), tmp_path, keep_weights=True)
    with pytest.raises(
        ElthError, match=r"rewind point does not fit resnet14\(width=4\): it has no"
    ):
        read(of_kind(built, "rewind_point")[0], tmp_path)
    with pytest.raises(ElthError, match="the packed mask of 'conv1.weight' should be 5 bytes for"):
        read(of_kind(built, "round")[0], tmp_path)


def test_a_file_of_another_kind_is_refused(built: Plan, tmp_path: Path) -> None:
    write_tensors(tmp_path / "rewind.safetensors", {}, {"kind": "mask"})
    with pytest.raises(ElthError, match="is a safetensors file but no rewind point of elth"):
        read(of_kind(built, "rewind_point")[0], tmp_path)


def test_trained_weights_that_do_not_fit_the_mask_are_refused(built: Plan, tmp_path: Path) -> None:
    write(round_result(500), tmp_path, keep_weights=True)
    (tmp_path / "other").mkdir()
    write(round_result(500, seed=9), tmp_path / "other", keep_weights=True)
    (tmp_path / "other" / "trained.safetensors").replace(tmp_path / "trained.safetensors")
    with pytest.raises(
        ElthError, match=r"trained.safetensors: '.+' should hold \d+ non-zeros, found"
    ):
        read(of_kind(built, "round")[0], tmp_path)


def test_metadata_of_a_mask_is_its_digest(tmp_path: Path) -> None:
    result = round_result(500)
    write(result, tmp_path, keep_weights=False)
    _, metadata = read_tensors(tmp_path / "mask.safetensors", kind="mask")
    assert result.mask is not None
    assert metadata == {"kind": "mask", "sha256": masks.digest(result.mask)}
