"""Variants, twins and ways of IMP in a plan: what is shared, and what a key holds of them."""

from __future__ import annotations

from typing import Any

import pytest

from elth.errors import ElthError
from orchestrator import plan
from orchestrator.plan.ending import is_round, link_of
from orchestrator.plan.graph import Plan
from orchestrator.plan.stage import Stage, is_twin, iterations
from tests.orchestrator.helpers import TINY, tiny

REPEL = {"repel": {"pruning.repel": 2.0}}


def _built(*grid: dict[str, Any], **changes: Any) -> Plan:
    return plan.build(tiny("varied", grid=list(grid), **changes))


def _by_title(built: Plan) -> dict[str, Stage]:
    return {stage.title.removeprefix(f"{TINY} "): stage for stage in built.stages.values()}


def _own(stage: Stage) -> dict[str, Any]:
    """What the key of a stage holds beside what all have."""
    common = ("network", "dataset", "recipe", "seed", "rate", "ticket")
    return {name: value for name, value in stage.params.items() if name not in common}


def test_a_variant_is_in_keys_by_what_it_changes_only() -> None:
    plain = _built({"method": "imp", "network": TINY})
    size = tiny("varied").recipe.batch_size
    varied = _built(
        {"method": "imp", "network": TINY, "variant": ["none", "same", "small"]},
        variants={"same": {"recipe.batch_size": size}, "small": {"recipe.batch_size": size // 2}},
    )
    assert plain.stages.keys() < varied.stages.keys()
    assert len(varied.stages) == 2 * len(plain.stages)
    for key in plain.stages:
        assert [labels.get("variant") for labels in varied.labels(key)] == [None, "same"]
    assert all(
        one.labels["variant"] == "small" and one.title.endswith(", small, seed 0")
        for key, one in varied.stages.items()
        if key not in plain.stages
    )


def test_a_variant_holds_for_the_source_chain_of_a_cell() -> None:
    ett = {"method": "ett", "source": TINY, "network": "resnet20(width=4)", "transform": "append"}
    built = _built({**ett, "variant": "small"}, variants={"small": {"recipe.batch_size": 7}})
    assert all(stage.recipe.batch_size == 7 for stage in built.stages.values())
    assert {stage.labels["variant"] for stage in built.stages.values()} == {"small"}


def test_a_twin_is_its_cell_with_other_noise_and_nothing_else_changed() -> None:
    built = _built(
        {"method": ["dense", "imp", "reinit"], "network": TINY, "noise": [0, 1]},
        {"method": "snip", "network": TINY, "noise": 2},
    )
    by_title = _by_title(built)
    for of in ("dense round 0", "round 1", "round 2", "reinit round 2"):
        one, twin = by_title[f"{of}, seed 0"], by_title[f"{of}, noise 1, seed 0"]
        assert twin.parents == one.parents
        assert twin.params == {**one.params, "noise": {"copy": 1}}
        assert iterations(twin) == iterations(one)
        assert (is_twin(one), is_twin(twin)) == (False, True)
    assert "snip round 2, seed 0" not in by_title
    assert _own(by_title["snip round 2, noise 2, seed 0"]) == {"noise": {"copy": 2}}


def test_no_chain_goes_on_from_a_twin_and_a_twin_waits_for_its_chain() -> None:
    built = _built({"method": ["dense", "imp"], "network": TINY, "noise": [0, 1]})
    by_title = _by_title(built)
    twin = by_title["round 2, noise 1, seed 0"]
    assert not is_round(twin)
    assert link_of(twin).after == by_title["round 1, seed 0"].key
    jobs = built.jobs()
    names = ("rewind point", "dense round 0", "round 1", "round 2")
    chain = [by_title[f"{name}, seed 0"] for name in names]
    assert chain in [list(job.stages) for job in jobs]
    assert all(len(job.stages) == 1 for job in jobs if is_twin(job.stages[0]))


def test_noise_by_round_names_the_round_and_leaves_the_dense_training() -> None:
    common = _by_title(_built({"method": ["dense", "imp"], "network": TINY}))
    by_round = _by_title(
        _built(
            {"method": ["dense", "imp", "reinit"], "network": TINY, "noise": [0, 1]},
            pruning={"rate": 0.5, "rounds": 2, "noise": "round"},
        )
    )
    assert by_round["dense round 0, seed 0"].key == common["dense round 0, seed 0"].key
    assert _own(by_round["dense round 0, noise 1, seed 0"]) == {"noise": {"copy": 1}}
    assert _own(by_round["round 1, seed 0"]) == {"noise": {"round": 1}}
    assert _own(by_round["round 2, noise 1, seed 0"]) == {"noise": {"round": 2, "copy": 1}}
    assert _own(by_round["reinit round 2, seed 0"]) == {"noise": {"round": 2}}


@pytest.mark.parametrize(
    ("pruning", "own", "span"),
    [
        ({"weights": "init"}, {"weights": "init"}, (0, 42)),
        ({"weights": "trained"}, {"weights": "trained"}, (5, 42)),
        (
            {"weights": "finetune", "finetune": "3ep"},
            {"weights": "finetune", "finetune": "3ep"},
            (42, 105),
        ),
        ({"weights": "rewind"}, {}, (5, 42)),
        ({"one_shot": True}, {"keep": 2753}, (5, 42)),
        ({"repel": -1.0}, {"repel": -1.0}, (5, 42)),
        ({"repel": 2.0, "repel_from": "previous"}, {"repel": 2.0, "repel_from": "previous"}, None),
    ],
)
def test_a_way_is_in_the_keys_of_rounds(
    pruning: dict[str, Any], own: dict[str, Any], span: tuple[int, int] | None
) -> None:
    plain = _by_title(_built({"method": ["dense", "imp"], "network": TINY}))
    recipe = {**tiny("x").recipe.full(), "length": "2ep", "rewind": "5it"}
    found = _by_title(
        _built(
            {"method": ["dense", "imp"], "network": TINY},
            pruning={"rate": 0.5, "rounds": 2, **pruning},
            recipe=recipe,
        )
    )
    plain = _by_title(_built({"method": ["dense", "imp"], "network": TINY}, recipe=recipe))
    last = found["round 2, seed 0"]
    assert _own(last) == own
    assert (last.key == plain["round 2, seed 0"].key) == (not own)
    assert found["dense round 0, seed 0"].key == plain["dense round 0, seed 0"].key
    if span is not None:
        assert iterations(last) == span


def test_repelled_by_the_previous_is_in_keys_from_round_two_on() -> None:
    ways: list[dict[str, Any]] = [{"repel": 2.0}, {"repel": 2.0, "repel_from": "previous"}]
    every, previous = (
        _by_title(
            _built(
                {"method": "imp", "network": TINY}, pruning={"rate": 0.5, "rounds": 2, **pruning}
            )
        )
        for pruning in ways
    )
    assert every["round 1, seed 0"].key == previous["round 1, seed 0"].key
    assert every["round 2, seed 0"].key != previous["round 2, seed 0"].key


def test_a_single_pruning_goes_from_the_dense_network_to_each_level() -> None:
    built = _built(
        {"method": "imp", "network": TINY, "round": [1, 2]},
        {"method": "imp", "network": TINY, "sparsity": 0.6},
        pruning={"rate": 0.5, "rounds": 2, "one_shot": True},
    )
    by_title = _by_title(built)
    dense = by_title["dense round 0, seed 0"]
    rest = [by_title[f"{of}, seed 0"] for of in ("round 1", "round 2", "at 60 %")]
    assert [stage.parents[-1] for stage in rest] == [dense.key] * 3
    assert [stage.params["keep"] for stage in rest] == [5506, 2753, 4404]


def test_weights_drawn_anew_under_repulsion_are_a_chain_of_their_own() -> None:
    built = _built(
        {"method": "reinit", "network": TINY, "round": [0, 2], "variant": ["none", "repel"]},
        variants=REPEL,
    )
    found = _by_title(built)
    start, dense = found["rewind point, seed 0"], found["reinit round 0, seed 0"]
    assert dense.parents == (start.key,)
    assert [labels.get("variant") for labels in built.labels(dense.key)] == [None, "repel"]
    first, second = (found[f"reinit round {k}, repel, seed 0"] for k in (1, 2))
    assert first.parents == (found["round 1, repel, seed 0"].key, dense.key)
    assert second.parents == (found["round 2, repel, seed 0"].key, first.key)
    assert _own(second) == {"repel": 2.0}
    assert found["reinit round 2, seed 0"].parents == (found["round 2, seed 0"].key,)
    # What the next one is repelled from is kept; of the rounds themselves it is anyway.
    assert built.kept == {dense.key, first.key}


def test_strength_nothing_is_the_plain_chain() -> None:
    grid = {"method": ["imp", "reinit"], "network": TINY}
    plain = _built(grid)
    found = _built(grid, pruning={"rate": 0.5, "rounds": 2, "repel": 0.0})
    assert found.stages.keys() == plain.stages.keys()


def test_lines_are_counted_by_variant_and_twin() -> None:
    both = ["none", "repel"]
    built = _built(
        {"method": ["dense", "imp"], "network": TINY, "variant": both, "noise": [0, 1]},
        variants=REPEL,
    )
    # Of each variant a chain of three trainings, and one with three twins beside two rounds of it.
    assert built.alone()[0] == 2 * (3 + 3 + 2)


def test_too_many_stages_of_variants_are_refused_before_any_is_built() -> None:
    variants = {f"v{n}": {"recipe.lr": 0.001 * (n + 1)} for n in range(400)}
    with pytest.raises(ElthError, match="would come to about 120,"):
        _built(
            {"method": "imp", "network": TINY, "variant": list(variants)},
            variants=variants,
            pruning={"rate": 0.01, "rounds": 300},
        )


def test_a_round_and_its_sparsity_are_two_cells_of_one_stage() -> None:
    grid = [{"method": "snip", "network": TINY, **at} for at in ({"round": 1}, {"sparsity": 0.5})]
    built = plan.build(tiny("two", grid=grid))
    (key,) = built.asked
    assert [labels.get("target", "") for labels in built.labels(key)] == ["", "0.5"]
