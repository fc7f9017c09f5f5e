"""From the results of parents to a ticket, and results as files, on a chain made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from elth import controls, masks
from elth.data import Dataset, info
from elth.data import load as load_dataset
from elth.errors import ElthError
from elth.files import read_tensors, write_tensors
from elth.networks import NetworkSpec
from elth.recipes import Recipe
from elth.tickets import Ticket
from elth.training import Epoch, Training
from orchestrator import plan, stages
from orchestrator.plan import Plan, Stage
from orchestrator.stages import Result
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
    ticket = stages.ticket(of_kind(built, "round")[0], results.__getitem__)
    assert (ticket.network, ticket.shape) == (NetworkSpec.parse(TINY), SHAPE)
    assert ticket.nonzeros == masks.total(ticket.mask) == TOTAL
    assert _same(ticket.rewind, _start(results))
    assert ticket.origin["history"] == [{"imp_round": 0}]
    assert ticket.origin["seed"] == 0
    assert ticket.origin["dataset"]["name"] == "digits"


@pytest.mark.parametrize(("k", "kept"), [(1, TOTAL // 2), (2, 3500)])
def test_a_round_keeps_the_exact_count_of_the_one_before(
    built: Plan, results: dict[str, tuple[Stage, Result]], k: int, kept: int
) -> None:
    ticket = stages.ticket(of_kind(built, "round")[k], results.__getitem__)
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
    ticket = stages.ticket(chain[2], results.__getitem__)
    assert bool(ticket.mask["head.weight"].all())
    assert ticket.nonzeros == total // 2


def test_reinit_keeps_the_mask_and_draws_all_else(
    built: Plan, results: dict[str, tuple[Stage, Result]]
) -> None:
    ticket = stages.ticket(_method(built, "reinit"), results.__getitem__)
    assert _same(ticket.mask, _mask(results, 2))
    assert _same(ticket.rewind, controls.reinit(NetworkSpec.parse(TINY), SHAPE, 0))
    assert not torch.equal(ticket.rewind["conv1.weight"], _start(results)["conv1.weight"])
    assert ticket.origin["history"] == [{"imp_round": 2}, {"reinit": "all"}]


def test_random_keeps_the_weights_and_the_count_of_each_layer(
    built: Plan, results: dict[str, tuple[Stage, Result]]
) -> None:
    ticket = stages.ticket(_method(built, "random"), results.__getitem__)
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
    ticket = stages.ticket(stage, {start: results[start]}.__getitem__)  # needs nothing else
    assert ticket.nonzeros == TOTAL // 4
    rewind = _start(results)
    weights = torch.cat([rewind[n].abs().flatten() for n in ticket.mask])
    stays = torch.cat([m.flatten() for m in ticket.mask.values()])
    assert float(weights[stays].min()) >= float(weights[~stays].max())
    assert ticket.origin["history"] == [{"criterion": "magnitude", "nonzeros": TOTAL // 4}]


def test_a_transformation_moves_weights_and_masks(
    built: Plan, results: dict[str, tuple[Stage, Result]]
) -> None:
    ticket = stages.ticket(_method(built, "ett"), results.__getitem__)
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
    steps = [{"shuffle": "layerwise"}, *ett.params["ticket"], {"reinit": "all"}]
    stage = Stage(
        kind="retraining",
        params={**ett.params, "ticket": steps},
        parents=ett.parents,
        labels=ett.labels,
    )
    ticket = stages.ticket(stage, results.__getitem__)
    shuffled = controls.shuffle_layerwise(_mask(results, 2), 0)
    assert torch.equal(ticket.mask["layer1.2.conv2.weight"], shuffled["layer1.1.conv2.weight"])
    assert _same(ticket.rewind, controls.reinit(NetworkSpec.parse(TINY_DEEPER), SHAPE, 0))
    assert [next(iter(step)) for step in ticket.origin["history"]] == [
        "imp_round",
        "shuffle",
        "transform",
        "reinit",
    ]


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
        stages.ticket(first, results.__getitem__)


def test_making_a_ticket_changes_no_parent(
    built: Plan, results: dict[str, tuple[Stage, Result]]
) -> None:
    before = {n: t.clone() for n, t in _start(results).items()}
    mask = {n: t.clone() for n, t in _mask(results, 2).items()}
    for stage in of_kind(built, "retraining"):
        stages.ticket(stage, results.__getitem__)
    assert _same(before, _start(results))
    assert _same(mask, _mask(results, 2))


# Training


@pytest.fixture(scope="module")
def digits() -> Dataset:
    """The digits, read once."""
    return load_dataset("digits")


def _run(
    stage: Stage, ticket: Ticket | None, data: Dataset, networks: stages.Networks
) -> tuple[list[Epoch], Result]:
    epochs = []
    training = stages.train(stage, ticket, data, networks)
    while True:
        try:
            epochs.append(next(training))
        except StopIteration as end:
            return epochs, end.value


def test_training_stops_and_goes_on_at_the_rewind_point(built: Plan, digits: Dataset) -> None:
    networks = stages.Networks()
    start, dense = of_kind(built, "rewind_point")[0], of_kind(built, "round")[0]
    epochs, rewound = _run(start, None, digits, networks)
    assert [(epoch.epoch, epoch.step) for epoch in epochs] == [(1, 21)]
    assert (rewound.mask, rewound.trained) == (None, None)
    ticket = stages.ticket(dense, {start.key: (start, rewound)}.__getitem__)
    epochs, trained = _run(dense, ticket, digits, networks)
    assert [(epoch.epoch, epoch.step) for epoch in epochs] == [(2, 42)]
    assert trained.rewind is None
    assert trained.mask is ticket.mask
    # The same as a training by elth alone, on a network of its own.
    recipe: Recipe = plan.recipe_of(dense)
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
    networks = stages.Networks()
    _, fresh = _run(start, None, digits, networks)
    for tensor in networks.get(TINY, SHAPE).state_dict().values():
        tensor.fill_(7)
    _, again = _run(start, None, digits, networks)
    assert fresh.rewind is not None
    assert again.rewind is not None
    assert _same(fresh.rewind, again.rewind)
    assert len(networks.built) == 1


def test_a_rewind_point_at_initialisation_is_the_initial_weights(digits: Dataset) -> None:
    recipe = {**RECIPE, "length": "1ep", "rewind": "0ep"}
    start = next(iter(plan.build(tiny("init", recipe=recipe)).stages.values()))
    epochs, result = _run(start, None, digits, stages.Networks())
    assert epochs == []
    assert result.rewind is not None
    initial = rewind_result(seed=0).rewind
    assert initial is not None
    assert _same(result.rewind, initial)


# Files


def test_a_rewind_point_is_written_whole(built: Plan, tmp_path: Path) -> None:
    start, result = of_kind(built, "rewind_point")[0], rewind_result()
    stages.write(result, tmp_path, keep_weights=False)
    assert [path.name for path in tmp_path.iterdir()] == ["rewind.safetensors"]
    again = stages.read(start, tmp_path)
    assert again.rewind is not None
    assert result.rewind is not None
    assert _same(again.rewind, result.rewind)
    assert (again.mask, again.trained) == (None, None)


def test_of_a_round_only_the_weights_that_are_left_are_written(built: Plan, tmp_path: Path) -> None:
    stage, result = of_kind(built, "round")[2], round_result(500)
    stages.write(result, tmp_path, keep_weights=True)
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
    again = stages.read(stage, tmp_path)
    assert again.mask is not None
    assert again.trained is not None
    assert result.mask is not None
    assert _same(again.mask, result.mask)
    assert _same(again.trained, result.trained)
    assert list(again.mask) == list(result.mask)


def test_trained_weights_are_written_on_request(built: Plan, tmp_path: Path) -> None:
    stages.write(round_result(500), tmp_path, keep_weights=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mask.safetensors"]
    again = stages.read(_method(built, "reinit"), tmp_path)
    assert again.mask is not None
    assert again.trained is None


@pytest.mark.parametrize("name", ["mask", "trained", "rewind"])
def test_a_flipped_bit_is_found(built: Plan, tmp_path: Path, name: str) -> None:
    stage = of_kind(built, "rewind_point" if name == "rewind" else "round")[0]
    stages.write(round_result(500), tmp_path, keep_weights=True)
    stages.write(rewind_result(), tmp_path, keep_weights=True)
    path = tmp_path / f"{name}.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ElthError, match=f"{name}.safetensors is damaged: its checksum is not"):
        stages.read(stage, tmp_path)


@pytest.mark.parametrize("name", ["mask", "trained", "rewind"])
def test_a_truncated_file_is_found(built: Plan, tmp_path: Path, name: str) -> None:
    stage = of_kind(built, "rewind_point" if name == "rewind" else "round")[0]
    stages.write(round_result(500), tmp_path, keep_weights=True)
    stages.write(rewind_result(), tmp_path, keep_weights=True)
    path = tmp_path / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ElthError, match=f"{name}.safetensors is no whole safetensors file"):
        stages.read(stage, tmp_path)


def test_a_missing_file_is_found(built: Plan, tmp_path: Path) -> None:
    for kind in ("rewind_point", "round"):
        with pytest.raises(ElthError, match="there is no file"):
            stages.read(of_kind(built, kind)[0], tmp_path)


def test_files_of_another_network_are_refused(built: Plan, tmp_path: Path) -> None:
    stages.write(rewind_result(TINY_DEEPER), tmp_path, keep_weights=True)
    stages.write(round_result(500, "resnet14(width=8)"), tmp_path, keep_weights=True)
    with pytest.raises(
        ElthError, match=r"rewind point does not fit resnet14\(width=4\): it has no"
    ):
        stages.read(of_kind(built, "rewind_point")[0], tmp_path)
    with pytest.raises(ElthError, match="the packed mask of 'conv1.weight' should be 5 bytes for"):
        stages.read(of_kind(built, "round")[0], tmp_path)


def test_a_file_of_another_kind_is_refused(built: Plan, tmp_path: Path) -> None:
    write_tensors(tmp_path / "rewind.safetensors", {}, {"kind": "mask"})
    with pytest.raises(ElthError, match="is a safetensors file but no rewind point of elth"):
        stages.read(of_kind(built, "rewind_point")[0], tmp_path)


def test_trained_weights_that_do_not_fit_the_mask_are_refused(built: Plan, tmp_path: Path) -> None:
    stages.write(round_result(500), tmp_path, keep_weights=True)
    (tmp_path / "other").mkdir()
    stages.write(round_result(500, seed=9), tmp_path / "other", keep_weights=True)
    (tmp_path / "other" / "trained.safetensors").replace(tmp_path / "trained.safetensors")
    with pytest.raises(
        ElthError, match=r"trained.safetensors: '.+' should hold \d+ non-zeros, found"
    ):
        stages.read(of_kind(built, "round")[0], tmp_path)


def test_metadata_of_a_mask_is_its_digest(tmp_path: Path) -> None:
    result = round_result(500)
    stages.write(result, tmp_path, keep_weights=False)
    _, metadata = read_tensors(tmp_path / "mask.safetensors", kind="mask")
    assert result.mask is not None
    assert metadata == {"kind": "mask", "sha256": masks.digest(result.mask)}
