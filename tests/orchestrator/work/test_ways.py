"""Variants, twins and ways of IMP from plan to report, done in this process."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import torch
from rich.console import Console

import elth
from elth.errors import ElthError
from elth.streams import Noise
from orchestrator import plan
from orchestrator.plan.stage import Stage, iterations
from orchestrator.report import figure
from orchestrator.report.cells import Cell, collect
from orchestrator.report.forms import to_csv, to_json, to_tables
from orchestrator.store import variants
from orchestrator.store.address import Store
from orchestrator.store.tracker import Tracker
from orchestrator.work.tickets import repulsion_of, ticket_of, tracked_ticket
from tests.orchestrator.helpers import TINY, Finished, do, tiny


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A chain with twins, a variant that shares nothing, one that shares all, and other ways."""
    found = tiny(
        "ways",
        seeds=[0],
        variants={
            "same": {"recipe.batch_size": tiny("x").recipe.batch_size},
            "small": {"recipe.batch_size": 96},
            "lrr": {"pruning.weights": "trained"},
            "tuned": {"pruning": {"weights": "finetune", "finetune": "1ep"}},
            "init": {"pruning.weights": "init"},
            "repel": {"pruning.repel": 2.0, "pruning.noise": "round"},
        },
        grid=[
            {
                "method": ["dense", "imp"],
                "network": TINY,
                "variant": ["none", "same", "small", "lrr", "tuned", "init", "repel"],
            },
            {"method": "imp", "network": TINY, "round": 1, "noise": 1, "variant": ["none", "same"]},
            {"method": "reinit", "network": TINY, "round": [0, 1]},
            {"method": "reinit", "network": TINY, "round": 2, "variant": "repel"},
        ],
    )
    built = plan.build(found)
    store = Store.of(tmp_path_factory.mktemp("ways"))
    tracker = Tracker(store)
    do(found, built, tracker)
    return Finished(store=store, tracker=tracker, experiment=found, plan=built)


def _stage(ways: Finished, title: str) -> Stage:
    (found,) = (s for s in ways.plan.stages.values() if s.title == f"{TINY} {title}, seed 0")
    return found


def _trained(ways: Finished, title: str) -> dict[str, torch.Tensor]:
    trained = ways.tracker.load(_stage(ways, title).key)[1].trained
    assert trained is not None
    return trained


def _equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_twin_has_the_ticket_of_its_cell_and_other_trained_weights(ways: Finished) -> None:
    one, twin = _stage(ways, "round 1"), _stage(ways, "round 1, noise 1")
    of_one, of_twin = (ticket_of(stage, ways.tracker.load) for stage in (one, twin))
    assert _equal(of_one.mask, of_twin.mask)
    assert _equal(of_one.rewind, of_twin.rewind)
    assert not _equal(_trained(ways, "round 1"), _trained(ways, "round 1, noise 1"))


def test_a_round_of_learning_rate_rewinding_starts_from_trained_weights(ways: Finished) -> None:
    for name in ("lrr", "tuned"):
        found = ticket_of(_stage(ways, f"round 2, {name}"), ways.tracker.load)
        assert _equal(found.rewind, _trained(ways, f"round 1, {name}"))
    rewound = ticket_of(_stage(ways, "round 2"), ways.tracker.load)
    start = ways.tracker.load(_stage(ways, "rewind point").key)[1].rewind
    assert start is not None
    assert _equal(rewound.rewind, start)


def test_a_round_that_goes_back_to_initialisation_is_trained_from_there(ways: Finished) -> None:
    found = ticket_of(_stage(ways, "round 1, init"), ways.tracker.load)
    start = ways.tracker.load(_stage(ways, "rewind point").key)[1].rewind
    assert start is not None
    assert not _equal(found.rewind, start)
    epochs = {
        title: len(ways.tracker.client.get_metric_history(_run(ways, title), "test_accuracy"))
        for title in ("round 1", "round 1, init", "round 1, tuned")
    }
    recipe = ways.experiment.recipe
    assert (str(recipe.rewind), str(recipe.length)) == ("1ep", "2ep")
    assert epochs == {"round 1": 1, "round 1, init": 2, "round 1, tuned": 1}


def _run(ways: Finished, title: str) -> str:
    run = ways.tracker.run_of(_stage(ways, title).key)
    assert run is not None
    return str(run.info.run_id)


def test_finetuning_is_at_the_last_learning_rate(ways: Finished) -> None:
    history = ways.tracker.client.get_metric_history(_run(ways, "round 1, tuned"), "lr")
    plain = ways.tracker.client.get_metric_history(_run(ways, "round 1"), "lr")
    assert [point.value for point in history] == [plain[-1].value]
    assert history[0].step == plain[-1].step + 1


@pytest.mark.parametrize(
    ("name", "way"),
    [
        ("lrr", {"weights": "trained"}),
        ("tuned", {"weights": "finetune", "finetune": "1ep"}),
        ("init", {"weights": "init"}),
        ("repel", {"repel": 2.0, "noise": "round"}),
    ],
)
def test_the_rounds_are_those_of_the_science_bit_for_bit(
    ways: Finished, name: str, way: dict[str, Any]
) -> None:
    data = elth.load_dataset("digits")
    recipe = ways.experiment.recipe
    for one in elth.imp(TINY, data, recipe, seed=0, rate=0.5, rounds=2, **way):
        if one.number:
            title = f"round {one.number}, {name}"
            assert _equal(_trained(ways, title), one.trained)
            ticket = tracked_ticket(ways.tracker, _run(ways, title))
            assert _equal(ticket.rewind, one.rewind)
            assert ticket.origin["way"] == one.origin["way"] == way
            with pytest.raises(ElthError, match="another way of pruning"):
                elth.imp(TINY, data, recipe, seed=0, rate=0.5, rounds=2, start=ticket)
            repulsion = elth.Repulsion(0) if "repel" in way else None
            again = elth.train_ticket(ticket, data, recipe, repulsion=repulsion)
            assert (again.step, again.stop, again.noise) == (
                *iterations(_stage(ways, title)),
                Noise.of(one.origin.get("noise", {})),
            )


def test_repelled_rounds_tell_how_much_and_go_elsewhere(ways: Finished) -> None:
    repelled = ways.tracker.client.get_run(_run(ways, "round 2, repel")).data
    assert 0 < repelled.metrics["repulsion"] < 2
    assert (repelled.params["pruning.repel"], repelled.params["pruning.noise"]) == ("2.0", "round")
    plain = ways.tracker.client.get_run(_run(ways, "round 2")).data
    assert "repulsion" not in plain.metrics
    assert not {name for name in plain.params if name.startswith("pruning.")}


def test_weights_drawn_anew_are_repelled_from_their_own_rounds(ways: Finished) -> None:
    found = repulsion_of(_stage(ways, "reinit round 2, repel"), ways.tracker.load)
    assert found is not None
    first, second = found.optima
    assert _equal(dict(first), _trained(ways, "reinit round 0"))
    assert _equal(dict(second), _trained(ways, "reinit round 1, repel"))
    assert repulsion_of(_stage(ways, "round 2"), ways.tracker.load) is None


def test_the_ticket_of_a_tracked_run_is_what_was_trained(ways: Finished) -> None:
    for title in ("round 2, lrr", "round 2, init", "round 1, noise 1", "reinit round 0"):
        made = tracked_ticket(ways.tracker, _run(ways, title))
        again = ticket_of(_stage(ways, title), ways.tracker.load)
        assert _equal(made.rewind, again.rewind)
        assert _equal(made.mask, again.mask)


def test_cells_are_told_apart_by_variant_and_twin(ways: Finished) -> None:
    report = collect(ways.tracker, "ways")
    assert report.missing == 0
    names = {(cell.name, cell.round) for cell in report.cells}
    variants_ = ("", *(f", {name}" for name in ways.experiment.variants))
    assert names == {
        *((f"dense{one}", 0) for one in variants_),
        *((f"IMP{one}", k) for one in variants_ for k in (1, 2)),
        *((f"IMP{one}, noise 1", 1) for one in ("", ", same")),
        ("Reinit", 0),
        ("Reinit", 1),
        *(("Reinit, repel", k) for k in (0, 1, 2)),
    }
    of = {(cell.name, cell.round): cell for cell in report.cells}
    assert of["IMP", 2].accuracy == of["IMP, same", 2].accuracy
    assert of["IMP", 2].runs == of["IMP, same", 2].runs
    assert of["IMP", 2].accuracy != of["IMP, small", 2].accuracy
    assert "variant" not in of["IMP", 2].plain()
    assert of["IMP, same, noise 1", 1].plain().items() >= {"variant": "same", "noise": 1}.items()


def test_differences_are_to_imp_of_the_same_variant(ways: Finished) -> None:
    from orchestrator.report.cells import Imps

    report = collect(ways.tracker, "ways")
    twin = next(c for c in report.cells if c.name == "IMP, same, noise 1")
    imp = Imps(report.cells).of(twin)
    assert isinstance(imp, Cell)
    assert (imp.variant, imp.noise, imp.round) == ("same", 0, 1)
    assert Imps(report.cells).difference(twin) == pytest.approx(twin.mean - imp.mean)
    assert Imps(report.cells).difference(imp) is None


def test_tables_csv_json_and_figure_show_them(ways: Finished) -> None:
    report = collect(ways.tracker, "ways")
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(to_tables(report))
    text = console.export_text()
    for name in ("IMP, small", "IMP, same, noise 1", "dense, lrr", "Reinit"):
        assert name in text
    header, first, *_ = to_csv(report).splitlines()
    assert "dataset,variant,noise,sparsity" in header
    assert first.count(",") == header.count(",")
    assert {one.get("variant", "") for one in json.loads(to_json(report))} == {
        *ways.experiment.variants,
        "",
    }
    axes = [axis for axis in figure.plot(report).axes if axis.axison]
    titles = {axis.get_title(loc="left") for axis in axes}
    assert f"{TINY}, digits, small" in titles  # too many lines for one panel


def test_runs_tell_their_variants_by_grid(ways: Finished) -> None:
    content = ways.tracker.grids.content("ways")
    count = variants.tell(ways.tracker, "ways", content)
    assert count > 0
    assert variants.tell(ways.tracker, "ways", content) == 0

    def tag(title: str) -> Any:
        return ways.tracker.client.get_run(_run(ways, title)).data.tags.get("variant.ways")

    assert tag("round 1") == "none, same"
    assert tag("round 1, small") == "small"
    assert tag("dense round 0") == "none, same, lrr, tuned, init, repel"
    assert tag("reinit round 1") is None
    assert tag("reinit round 0") == "none, repel"
    # What a grid calls it is nothing of the stage.
    for one in ways.tracker.stages():
        assert "variant" not in one.stage.labels


def test_a_grid_goes_on_with_another_variant_and_does_not_lose_one(ways: Finished) -> None:
    def change(**patch: Any) -> Any:
        grid = [e.model_dump(mode="json", exclude_unset=True) for e in ways.experiment.grid]
        found = tiny("ways", **({"variants": ways.experiment.variants, "grid": grid} | patch))
        return ways.tracker.grids.change(found, plan.build(found))

    assert change().refusal == ""
    assert change().lost == frozenset()
    more = {**ways.experiment.variants, "slow": {"recipe.lr": 0.01}}
    entry = {"method": "imp", "network": TINY, "variant": "slow"}
    grid = [e.model_dump(mode="json", exclude_unset=True) for e in ways.experiment.grid]
    grown = change(variants=more, grid=[*grid, entry])
    assert "4 stages are added" in grown.told
    fewer = dict(ways.experiment.variants)
    del fewer["same"]  # which has no stage of its own
    grid[0]["variant"].remove("same")
    grid[1]["variant"].remove("same")
    lost = change(variants=fewer, grid=grid)
    assert "would drop" in lost.refusal
    assert "same" in lost.refusal


def test_a_recipe_of_a_variant_that_cannot_be_trained_here_is_refused() -> None:
    from orchestrator.work.resources import check_recipes

    found = tiny(
        "tf32",
        variants={"fast": {"recipe.precision": "tf32"}},
        grid=[{"method": "imp", "network": TINY, "variant": ["none", "fast"]}],
    )
    with pytest.raises(ElthError, match="precision is tf32"):
        check_recipes(found)
