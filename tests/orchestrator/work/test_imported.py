"""Trainings that start from an imported ticket: the same as those of the chain it comes of."""

from __future__ import annotations

import dataclasses

import pytest

from elth import elastic, masks
from elth.errors import ElthError
from elth.tickets import Ticket
from orchestrator import plan
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.graph import Plan
from orchestrator.plan.imported import imported
from orchestrator.plan.stage import Stage
from orchestrator.store import imported_tickets
from orchestrator.store.address import Store
from orchestrator.store.tracker import Tracker
from orchestrator.work.driver import _asked
from orchestrator.work.tickets import ticket_of, tracked_ticket, trained_ticket
from orchestrator.work.worker import Worker, run_job
from tests.orchestrator.helpers import TINY, TINY_DEEPER, Finished, job_config, round_of, tiny

NAMED = {"network": TINY, "ticket": "theirs"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """A round's ticket, imported into a store of its own, and what was made of it there."""

    store: Store
    tracker: Tracker
    experiment: Experiment
    plan: Plan
    ticket: Ticket
    start: Stage

    def only(self, **labels: object) -> Stage:
        """The one stage with some labels."""
        (found,) = [
            stage
            for stage in self.plan.stages.values()
            if labels.items() <= dict(stage.labels).items()
        ]
        return found


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, finished: Finished) -> Given:
    """The first round of ``finished``, taken to another store and gone on from there."""
    own = round_of(finished.plan, TINY, 1)
    ticket = tracked_ticket(finished.tracker, own.key)
    named = {"sha256": ticket.digest, "iteration": 21, "nonzeros": ticket.nonzeros}
    found = tiny(
        "given",
        tickets={"theirs": named},
        grid=[
            {"method": "imp", "round": [0, 1], **NAMED},
            {"method": ["reinit", "random"], **NAMED},
            {"method": "ett", **NAMED, "source": TINY, "network": TINY_DEEPER},
        ],
    )
    built = plan.build(found)
    (start,) = [stage for stage in built.stages.values() if stage.is_given]
    store = Store.of(tmp_path_factory.mktemp("given"))
    tracker = Tracker(store)
    imported_tickets.put(tracker, start, ticket, {})
    worker = Worker()
    for job in built.jobs({start.key}):
        for report in run_job(job_config(store, found, job.stages), worker):
            assert not report.failed, report.failed
    return Given(
        store=store, tracker=tracker, experiment=found, plan=built, ticket=ticket, start=start
    )


@pytest.mark.parametrize("number", [0, 1])
def test_it_trains_as_in_the_chain_it_comes_of(
    given: Given, finished: Finished, number: int
) -> None:
    """Round 0 is the round whose ticket was imported, and the next one prunes from there."""
    mine = given.only(method="imp", round=number)
    own = round_of(finished.plan, TINY, number + 1)
    runs = [t.run_of(s.key) for t, s in ((given.tracker, mine), (finished.tracker, own))]
    assert runs[0] is not None
    assert runs[1] is not None
    for what in ("elth.mask_sha256", "elth.trained_sha256", "elth.numerics"):
        assert runs[0].data.tags[what] == runs[1].data.tags[what]
    for metric in ("test_accuracy", "test_loss", "train_loss"):
        assert runs[0].data.metrics[metric] == runs[1].data.metrics[metric]
    assert "recipe.rewind" in runs[0].data.params
    assert runs[0].data.params["ticket"] == "theirs"
    assert "ticket" not in runs[1].data.params


def test_what_is_made_of_it_is_made_of_its_weights_and_mask(given: Given) -> None:
    made = {
        name: ticket_of(given.only(method=name, round=0), given.tracker.load)
        for name in ("imp", "reinit", "random", "ett")
    }
    assert made["imp"].digest == given.ticket.digest
    assert masks.digest(made["reinit"].mask) == masks.digest(given.ticket.mask)
    assert made["random"].nonzeros == given.ticket.nonzeros
    moved = elastic.transform(given.ticket, TINY_DEEPER, "auto")
    assert made["ett"].digest == moved.digest
    for ticket in made.values():
        assert (ticket.origin["start"], ticket.origin["seed"]) == (21, 0)
        assert ticket.origin["history"][0] == {"imported": given.ticket.digest}
        assert ticket.origin["recipe"] == given.experiment.recipe.plain()


def test_it_is_a_ticket_by_itself(given: Given) -> None:
    found = tracked_ticket(given.tracker, given.start.key)
    assert found.digest == given.ticket.digest
    assert found.origin["start"] == 21
    assert "seed" not in found.origin
    with pytest.raises(ElthError, match="has no trained weights: it was imported as it is"):
        trained_ticket(given.tracker, given.start.key)


def test_nobody_computes_it(given: Given) -> None:
    other = imported(TINY, "digits", sha256="cd" * 32, iteration=21, nonzeros=5)
    (report,) = run_job(job_config(given.store, given.experiment, [other]))
    assert report.failed.startswith(f"{other.title} has to be imported again: elth ticket import ")
    assert not given.tracker.runs_of(other.key)
    tracked = given.tracker.stages()
    with pytest.raises(ElthError, match="is computed by nothing: elth ticket import "):
        _asked(given.experiment, given.plan, given.tracker, tracked, [given.start.title])
