"""Tickets from elsewhere, put into a store: a finished run each, of no grid until one uses it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlflow.entities import Run

from elth.errors import ElthError
from orchestrator.plan.stage import Stage
from orchestrator.store import redo, trash
from orchestrator.store.board import set_tag
from orchestrator.store.damage import AbsentError, DamagedError
from orchestrator.store.leases import Held, Lease, claim
from orchestrator.store.listing import stage_of
from orchestrator.store.marks import is_finished
from orchestrator.store.processes import owner
from orchestrator.store.result import Result
from orchestrator.store.runlog import begin_run
from orchestrator.store.tracker import Tracker
from orchestrator.store.users import SOMEBODY, Users, users

if TYPE_CHECKING:
    from elth.tickets import Ticket

_SOURCE = "mlflow.source.name"
_PAUSE = 1.0
"""Seconds between two looks at a stage that another process is at, or was."""


def put(tracker: Tracker, stage: Stage, ticket: Ticket, about: Mapping[str, Any]) -> bool:
    """Put a ticket into a store; whether it was not there before.

    One whose files are damaged or gone is set aside, and this one takes its place.

    Args:
        tracker: of the store.
        stage: its stage (``plan.imported.imported``).
        ticket: the ticket.
        about: where it comes from, as JSON values; it is kept with the run.

    Raises:
        ElthError: another process is at it, or the store does not take it.
    """
    while isinstance(claimed := _claimed(tracker, stage), Run):
        try:
            tracker.result_of(stage, claimed)
            return False
        except (DamagedError, AbsentError) as error:
            if isinstance(error, AbsentError):
                tracker.check_files()  # if most are not there, that is what is to be told
            tracker.set_aside(claimed, str(error))
    try:
        log = begin_run(
            tracker,
            stage,
            ticket,
            grid="",
            experiment="",
            driver=owner(),
            numerics="",
            lease=claimed,
        )
        set_tag(tracker.client, log.run_id, _SOURCE, "elth ticket import")
        log.texts["origin.json"] = json.dumps(about, indent=1)
        log.finish(Result(rewind=ticket.rewind, mask=ticket.mask), keep_weights=False)
    except BaseException:
        claimed.give_up()
        raise
    claimed.end()
    if claimed.is_again:  # something has missed files of the one that was there
        redo.settle(tracker, stage, "")
    return True


def _claimed(tracker: Tracker, stage: Stage) -> Run | Lease:
    token, since = "", time.monotonic()
    while True:
        watched = (token, time.monotonic() - since) if token else None
        asked = time.monotonic()
        found = claim(tracker, stage, grid="", driver=owner(), since=asked, watched=watched)
        if not isinstance(found, Held):
            return found
        if token and found.token != token:  # it lives
            raise ElthError(
                f"another process puts {stage.title} into the store {tracker.store}: give the same "
                "command again once it has ended"
            )
        if not token:
            token, since = found.token, asked
        time.sleep(_PAUSE)


@dataclass(frozen=True, kw_only=True)
class Unused:
    """An imported ticket that no grid uses."""

    run: Run
    stage: Stage
    size: int
    """Bytes of its files."""


def unused(tracker: Tracker) -> list[Unused]:
    """The imported tickets of a store that no grid uses, nor a stage that was made of one.

    Raises:
        ElthError: it cannot be told what a grid uses.
    """
    found = users(tracker, "")
    runs = [run for run in found.runs if is_finished(run) and _is_free(run, found)]
    return [
        Unused(run=run, stage=stage_of(run), size=tracker.files.size(run.info.run_id))
        for run in runs
    ]


def remove(tracker: Tracker, some: Sequence[Unused]) -> list[Unused]:
    """Move imported tickets to MLflow's trash; returns those that are there.

    One that a grid has begun to use since they were looked at is restored.
    """
    gone = []
    for one in some:
        run_id = one.run.info.run_id
        trash.tag(tracker, one.run)
        tracker.client.delete_run(run_id)
        if _is_free(one.run, users(tracker, "", trash=f"attributes.run_id = '{run_id}'")):
            gone.append(one)
        else:
            tracker.client.restore_run(run_id)
            trash.untag(tracker, one.run)
    tracker.forget()
    return gone


def _is_free(run: Run, found: Users) -> bool:
    return found.by_key[run.data.tags["elth.key"]] == {SOMEBODY}
