"""Trained weights that were let go or lost: the round is whole, and trained again where needed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from elth.errors import ElthError
from orchestrator import plan
from orchestrator.plan.analysing import weights_of
from orchestrator.plan.stage import Stage
from orchestrator.report.cells import collect
from orchestrator.report.forms import to_json
from orchestrator.store import redo, weights
from orchestrator.store.address import Store
from orchestrator.store.files import FILES
from orchestrator.store.keeping import needed_by
from orchestrator.store.listing import DAMAGED
from orchestrator.store.marks import TIDIED, mark_of
from orchestrator.store.overview import overview
from orchestrator.store.processes import owner
from orchestrator.store.tracker import Tracker
from orchestrator.store.verifying import verify
from orchestrator.work.tickets import tracked_ticket, trained_ticket
from tests.orchestrator.helpers import TINY, of_kind, round_of, tiny
from tests.orchestrator.store.test_damage import Shelf


class Chain(Shelf):
    """A chain of two rounds, and what was made of the first, from new weights."""

    def __init__(self, store: Store, tracker: Tracker) -> None:
        super().__init__(store, tracker)
        self.experiment = tiny(
            "chain",
            seeds=[80],
            grid=[
                {"method": "imp", "network": TINY},
                {"method": "reinit", "network": TINY, "round": 1},
            ],
        )
        self.plan = plan.build(self.experiment)
        self.rounds = [round_of(self.plan, TINY, k, 80) for k in (0, 1, 2)]
        (self.leaf,) = of_kind(self.plan, "retraining")
        tracker.grids.open("chain", self.experiment.resolved(), self.plan.stages, "")

    def report(self) -> str:
        return to_json(collect(self.tracker, "chain"))

    def run_id(self, stage: Stage) -> str:
        run = self.tracker.run_of(stage.key)
        assert run is not None
        return str(run.info.run_id)

    def has_weights(self) -> list[bool]:
        return [self.file(stage.key, "trained").exists() for stage in self.rounds]

    def tidy(self) -> int:
        found = weights.look(self.tracker, "chain")
        assert len(list(weights.let_go(self.tracker, found))) == len(found.runs)
        return len(found.runs)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    store = Store.of(tmp_path_factory.mktemp("weights"))
    made = Chain(store, Tracker(store))
    assert made.go().failed == {}
    return made


@pytest.fixture
def chain(made: Chain) -> Iterator[Chain]:
    """The chain with all its weights, also afterwards."""
    assert made.has_weights() == [True] * 3
    yield made
    if made.has_weights() != [True] * 3:
        for stage in made.rounds:
            made.forget(stage.key)
        assert made.go().failed == {}


def test_a_round_whose_weights_were_let_go_is_whole(chain: Chain) -> None:
    tracker, before = chain.tracker, chain.report()
    (size,) = [one.size for one in overview(tracker)]
    freed = sum(chain.file(one.key, "trained").stat().st_size for one in chain.rounds[:2])
    found = weights.look(tracker, "chain")
    assert (len(found.runs), found.size, found.kept, found.others) == (2, freed, 1, ())
    assert chain.has_weights() == [True] * 3, "nothing is done yet"
    assert chain.tidy() == 2
    assert chain.has_weights() == [False, False, True]
    for stage in chain.rounds[:2]:
        tags = tracker.client.get_run(chain.run_id(stage)).data.tags
        assert tags[TIDIED]
        assert "trained" not in tags[FILES]
    assert {one.state for one in verify(tracker, "chain")} == {"whole"}
    assert chain.report() == before, "byte for byte"
    assert [one.size for one in overview(tracker)] == [size - freed]
    assert chain.tidy() == 0
    now = chain.go()
    assert (now.done, now.notes) == (0, ())


def test_what_needs_the_mask_alone_leaves_it(chain: Chain) -> None:
    chain.tidy()
    before = chain.run_id(chain.rounds[1])
    chain.forget(chain.leaf.key)
    now = chain.go()
    assert (now.done, now.failed, now.notes) == (1, {}, ())
    assert chain.run_id(chain.rounds[1]) == before
    assert mark_of(chain.tracker.client.get_run(before)) == ""


def test_the_chain_goes_on_from_its_last_round(chain: Chain) -> None:
    chain.tidy()
    longer = Chain(chain.store, chain.tracker)
    longer.plan = plan.build(
        tiny("longer", seeds=[80], pruning={"rate": 0.5, "rounds": 3}, grid=chain_grid())
    )
    now = longer.go()
    assert (now.done, now.failed, now.notes) == (1, {}, ())
    longer.forget(round_of(longer.plan, TINY, 3, 80).key)


def chain_grid() -> list[dict[str, str]]:
    return [{"method": "imp", "network": TINY}]


def test_who_needs_the_weights_has_them_trained_again_with_the_same_bits(chain: Chain) -> None:
    tracker = chain.tracker
    whole = [chain.file(one.key, "trained").read_bytes() for one in chain.rounds]
    chain.tidy()
    old = [chain.run_id(stage) for stage in chain.rounds]
    chain.forget(chain.rounds[2].key)
    now = chain.go()
    assert now.failed == {}
    assert now.found + now.done == now.total
    for stage, before in zip(chain.rounds[:2], old, strict=False):
        assert any(note.startswith(f"{stage.title} is done again: ") for note in now.notes)
        told = f"{stage.title} came out the same, bit for bit"
        assert any(note.startswith(told) for note in now.notes)
        run = tracker.client.get_run(before)
        assert (run.info.status, run.info.lifecycle_stage) == ("FINISHED", "deleted")
        assert TIDIED not in tracker.client.get_run(chain.run_id(stage)).data.tags
    assert [chain.file(one.key, "trained").read_bytes() for one in chain.rounds] == whole
    assert redo.marked(tracker) == {}


@pytest.mark.parametrize("name", ["trained", "mask"])
def test_a_file_that_was_deleted_by_hand_is_made_again_by_who_needs_it(
    chain: Chain, name: str
) -> None:
    tracker, first = chain.tracker, chain.rounds[1]
    before, path = chain.run_id(first), chain.file(first.key, name)
    whole = path.read_bytes()
    path.unlink()
    now = chain.go()
    assert (now.done, now.notes) == (0, ()), "nobody needs it"
    child = chain.leaf if name == "mask" else chain.rounds[2]
    if name == "trained":
        chain.forget(chain.leaf.key)
        now = chain.go()
        assert (now.done, now.notes) == (1, ()), "that one needs the mask"
    assert chain.run_id(first) == before
    chain.forget(child.key)
    now = chain.go()
    assert now.failed == {}
    assert now.notes[0].startswith(f"{first.title} is done again: ")
    assert now.notes[1].startswith(f"{first.title} came out the same, bit for bit")
    run = tracker.client.get_run(before)
    assert DAMAGED not in run.data.tags, "it is not set aside"
    assert (run.info.status, run.info.lifecycle_stage) == ("FINISHED", "deleted")
    assert chain.file(first.key, name).read_bytes() == whole


def test_a_mark_that_was_not_met_is_nobodys_request(chain: Chain) -> None:
    """Its process died before the stage was begun again."""
    tracker, first = chain.tracker, chain.rounds[1]
    chain.tidy()
    redo.mark_lacking(tracker, first.key)
    run = tracker.run_of(first.key)
    assert run is not None
    assert mark_of(run) == "lacking"
    assert redo.waiting(tracker, tracker.stages()) == frozenset()
    assert tracker.load(first.key)[1].mask is not None
    assert chain.go().done == 0


def test_what_lacks_nothing_is_not_marked(chain: Chain) -> None:
    redo.mark_lacking(chain.tracker, chain.rounds[1].key)
    assert redo.marked(chain.tracker) == {}


def test_where_most_files_are_not_there_nothing_is_done_again(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELTH_PATIENCE_SECONDS", "0")
    place = chain.tracker.store.folder
    assert place is not None
    chain.forget(chain.rounds[2].key)
    (place / "artifacts").rename(place / "elsewhere")
    (place / "artifacts").mkdir()
    now = chain.go()
    (reason,) = now.failed.values()
    assert "is there, and the files of its runs are not" in reason
    assert redo.marked(chain.tracker) == {}
    (place / "artifacts").rmdir()
    (place / "elsewhere").rename(place / "artifacts")
    assert chain.go().failed == {}


def test_the_ticket_of_a_round_can_still_be_shown(chain: Chain) -> None:
    before = tracked_ticket(chain.tracker, chain.run_id(chain.rounds[2]))
    chain.tidy()
    after = tracked_ticket(chain.tracker, chain.run_id(chain.rounds[2]))
    assert all(after.mask[name].equal(mask) for name, mask in before.mask.items())
    assert all(after.rewind[name].equal(one) for name, one in before.rewind.items())
    assert after.origin == before.origin
    with pytest.raises(ElthError, match=r"trained weights of .* were let go by elth gc --weights"):
        trained_ticket(chain.tracker, chain.run_id(chain.rounds[1]))
    assert trained_ticket(chain.tracker, chain.run_id(chain.rounds[2])).rewind


def test_cut_off_before_a_file_is_removed_it_goes_on(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise OSError("a full stop")

    found = weights.look(chain.tracker, "chain")
    with monkeypatch.context() as patch:
        patch.setattr(chain.tracker.files, "remove", cut)
        with pytest.raises(ElthError, match="cannot be removed: a full stop"):
            next(weights.let_go(chain.tracker, found))
    assert chain.has_weights() == [True] * 3
    assert {one.state for one in verify(chain.tracker, "chain")} == {"whole"}
    assert chain.tidy() == 2
    assert chain.has_weights() == [False, False, True]


def test_runs_of_before_tell_their_digests_first(chain: Chain) -> None:
    tracker = chain.tracker
    told = {}
    for stage in chain.rounds:
        run = tracker.client.get_run(chain.run_id(stage))
        told[run.info.run_id] = run.data.tags["elth.trained_sha256"]
        for tag in (FILES, "elth.trained_sha256"):
            tracker.client.delete_tag(run.info.run_id, tag)
    tracker.forget()
    assert chain.tidy() == 2
    for stage in chain.rounds[:2]:
        run = tracker.client.get_run(chain.run_id(stage))
        assert run.data.tags["elth.trained_sha256"] == told[run.info.run_id]
    assert {one.state for one in verify(tracker, "chain")} == {"whole"}
    last = tracker.client.get_run(chain.run_id(chain.rounds[2]))
    tracker.client.set_tag(last.info.run_id, "elth.trained_sha256", told[last.info.run_id])


def test_while_a_driver_runs_the_grid_its_weights_stay(chain: Chain) -> None:
    with (
        chain.tracker.grids.driven("chain", owner()),
        pytest.raises(ElthError, match="chain cannot be let go now: the grid chain is being"),
    ):
        weights.look(chain.tracker, "chain")


def test_what_an_analysis_of_any_grid_looks_at_stays_until_it_is_done(chain: Chain) -> None:
    tracker = chain.tracker
    other = tiny("looks", seeds=[80], analyses=[{"measure": "distances"}])
    tracker.grids.open("looks", other.resolved(), plan.build(other).stages, "")
    found = weights.look(tracker, "chain")
    assert (len(found.runs), found.needed, found.kept) == (0, 3, 0)
    run = tracker.grids.run("looks")
    assert run is not None
    tracker.client.delete_run(run.info.run_id)
    assert len(weights.look(tracker, "chain").runs) == 2


def test_what_an_entry_of_any_grid_keeps_stays(chain: Chain) -> None:
    tracker = chain.tracker
    entry = {"method": "imp", "network": TINY, "round": [1], "keep": "weights"}
    other = tiny("keeps", seeds=[80], grid=[entry])
    tracker.grids.open("keeps", other.resolved(), plan.build(other).stages, "")
    found = weights.look(tracker, "chain")
    assert (len(found.runs), found.needed) == (1, 1)
    run = tracker.grids.run("keeps")
    assert run is not None
    tracker.client.delete_run(run.info.run_id)


def test_only_what_is_compared_with_its_start_needs_the_round_before() -> None:
    """A chain whose weights stay where training brought them starts from the round before."""
    kinds = ("histograms", "distances", "travel")
    looks = [{"measure": name, "of": {"round": [2, 3]}} for name in kinds]
    for weights_, more in (("trained", {"distances", "travel"}), ("rewind", set())):
        pruning = {"rate": 0.5, "rounds": 3, "weights": weights_}
        built = plan.build(tiny("stays", pruning=pruning, analyses=looks))
        number = {key: stage.labels["round"] for key, stage in built.stages.items()}
        for key in built.analyses:
            stage = built.stages[key]
            needed = {number[one] for one in weights_of(stage, built.stages)}
            assert needed == ({1, 2, 3} if stage.params["measure"] in more else {2, 3})
            assert needed == {number[one] for one in needed_by([stage], built.stages)}
            assert needed == {number[one] for one in weights._needs(stage, built.stages)}


def _needed(title: str, have: str, **changes: object) -> set[str]:
    """What a stage of a plan needs, where the weights of some others are there."""
    pruning = {"rate": 0.5, "rounds": 3, **changes}
    built = plan.build(
        tiny(
            "needs",
            pruning=pruning,
            grid=[
                {"method": "imp", "network": TINY},
                {"method": "imp", "network": TINY, "round": 2, "noise": 1},
            ],
        )
    )
    named = {stage.title.removeprefix(f"{TINY} "): key for key, stage in built.stages.items()}
    there = {key for name, key in named.items() if name.removesuffix(", seed 0")[-1] in have}
    found = weights._needed([named[f"{title}, seed 0"]], built.stages, there)
    return {name.removesuffix(", seed 0") for name, key in named.items() if key in found}


def test_a_round_and_its_twin_need_the_weights_of_the_round_before() -> None:
    assert _needed("round 3", "012") == {"round 2"}
    assert _needed("round 2, noise 1", "012") == {"round 1"}
    assert _needed("round 3", "012", weights="trained") == {"round 2"}
    assert _needed("dense round 0", "") == set()


def test_a_round_that_is_repelled_needs_all_before_it_or_the_last() -> None:
    before = {"dense round 0", "round 1", "round 2"}
    assert _needed("round 3", "012", repel=2.0) == before
    assert _needed("round 3", "012", repel=2.0, repel_from="previous") == {"round 2"}


def test_what_is_to_be_trained_again_needs_weights_in_its_turn() -> None:
    assert _needed("round 3", "0") == {"dense round 0", "round 1", "round 2"}
