"""How far a grid is, from the store alone: what runs, waits, failed or is blocked, and why."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow.exceptions import MlflowException
from pydantic import ValidationError

from elth import plugins
from elth.errors import ElthError
from orchestrator import plan as plans
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.costs import duration
from orchestrator.plan.graph import Plan
from orchestrator.plan.imported import how_to_import
from orchestrator.store.content import Content
from orchestrator.store.leases import last_seen
from orchestrator.store.listing import Tracked, by_key
from orchestrator.store.processes import in_words, is_alive
from orchestrator.store.redo import reasons
from orchestrator.store.tracker import Tracker

STATES = (
    *("finished", "running", "interrupted", "set aside"),
    *("failed", "blocked", "ended", "waiting"),
)
"""``running``: its process is not known to have ended; whether one elsewhere lives is not seen from
here. ``interrupted``: its process is gone; the next ``elth run`` goes on with it. ``set aside``:
its files are damaged; the next ``elth run`` does it again. ``blocked``: something it needs has
failed. ``ended``: its chain ended before it, by ``pruning.stop``. ``waiting``: nothing of it is
there yet."""

_LINES = 3
_LOGS = 5


@dataclass(frozen=True, kw_only=True)
class State:
    """The state of one stage."""

    key: str
    state: str
    title: str
    reason: str = ""
    log: tuple[str, ...] = ()
    """The last lines of what it logged, of one that failed."""


def states(tracker: Tracker, grid: str | Content) -> list[State]:
    """The state of every stage of a grid, or of what a file asks for, in the order of its plan.

    Raises:
        ElthError: the store has no such grid.
    """
    content = tracker.grids.content(grid) if isinstance(grid, str) else grid
    keys = content.keys
    tracked = tracker.stages()
    again = reasons(tracker, tracked)
    known = by_key(one for one in tracked if one.key in keys)
    finished = {key: one for key, one in known.items() if one.status == "finished"}
    ended = content.ended(finished)
    known = {key: one for key, one in known.items() if key not in ended}
    built = _plan(content)
    roots = _roots(built, {key for key, one in known.items() if one.status == "failed"})
    found: list[State] = []
    logs = 0
    for key, labels in keys.items():
        if key in ended:
            title = built.stages[key].title if key in built.stages else str(labels["network"])
            found.append(State(key=key, state="ended", title=title, reason=ended[key]))
            continue
        if key not in known:
            title = built.stages[key].title if key in built.stages else str(labels["network"])
            found.append(_missing(key, title, built, known, roots))
            continue
        one = known[key]
        title = one.stage.title
        if one.status == "failed":
            way = "elth run --retry-failed" if one.is_final else "the next elth run"
            lines: tuple[str, ...] = ()
            if logs < _LOGS:
                lines, logs = _log(tracker, one.run_id), logs + 1
            found.append(
                State(
                    key=key,
                    state="failed",
                    title=title,
                    reason=f"{one.reason or 'no reason is known'} ({way} does it again)",
                    log=lines,
                )
            )
        elif one.status == "killed":
            found.append(
                State(key=key, state="interrupted", title=title, reason="its process ended")
            )
        elif one.status == "set aside":
            does = "the next elth run does it again"
            does = f"{how_to_import(one.stage)} brings it anew" if one.stage.is_given else does
            why = f"{one.reason} ({does})"
            found.append(State(key=key, state="set aside", title=title, reason=why))
        elif key in again:
            found.append(State(key=key, state="waiting", title=title, reason=again[key]))
        else:
            reason = _running(tracker, one) if one.status == "running" else ""
            found.append(State(key=key, state=one.status, title=title, reason=reason))
    return found


def _running(tracker: Tracker, one: Tracked) -> str:
    """For how long a stage has run, and what is known of its process where that is not here."""
    now = time.time()
    text = f"for {duration(max(now - one.started / 1000, 0.0))}"
    try:
        run = tracker.client.get_run(one.run_id)
    except MlflowException:  # removed since it was listed
        return text
    owner = run.data.tags.get("elth.owner", "")
    if is_alive(owner):
        return text
    seen = last_seen(run)
    if seen is None:
        return f"{text} by {in_words(owner)}, which cannot be seen from here"
    return f"{text} by {in_words(owner)}, last sign of life {duration(max(now - seen, 0.0))} ago"


def _missing(
    key: str, title: str, built: Plan, known: Mapping[str, Tracked], roots: Mapping[str, str]
) -> State:
    if key in roots:
        failed = known[roots[key]].stage.title
        return State(key=key, state="blocked", title=title, reason=f"{failed} failed")
    stage = built.stages.get(key)
    if stage is not None and stage.is_given:
        reason = f"it is not in the store: {how_to_import(stage)} puts it there"
        return State(key=key, state="waiting", title=title, reason=reason)
    parents = stage.parents if stage else ()
    needs = [
        built.stages[parent].title
        for parent in parents
        if parent in built.stages and (parent not in known or known[parent].status != "finished")
    ]
    reason = f"needs {', '.join(needs)}" if needs else "can start"
    return State(key=key, state="waiting", title=title, reason=reason if stage else "")


def _roots(built: Plan, failed: set[str]) -> dict[str, str]:
    """For each stage that cannot be done, the failed one that is in its way."""
    roots: dict[str, str] = {}
    for key, stage in built.stages.items():  # parents come before their children
        for parent in stage.parents:
            root = parent if parent in failed else roots.get(parent)
            if root is not None:
                roots.setdefault(key, root)
    return roots


def _plan(content: Content) -> Plan:
    """The plan of a grid as it was run last; an empty one if its file is of another version.

    Or if it names code from outside that is not listed here: a store has nothing run.
    """
    try:
        with plugins.closed():
            experiment = Experiment.model_validate(content.experiment)
            return plans.build(experiment)
    except (ElthError, ValidationError):
        return Plan({})


def _log(tracker: Tracker, run_id: str) -> tuple[str, ...]:
    try:
        text = tracker.files.read(run_id, "traceback.txt").decode(errors="replace")
    except (MlflowException, OSError):
        return ()
    return tuple(line.rstrip() for line in text.splitlines() if line.strip())[-_LINES:]
