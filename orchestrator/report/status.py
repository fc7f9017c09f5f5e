"""How far a grid is, from the store alone: what runs, waits, failed or is blocked, and why."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mlflow.exceptions import MlflowException
from pydantic import ValidationError

from elth import plugins
from elth.errors import ElthError
from orchestrator import plan as plans
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.costs import duration
from orchestrator.plan.graph import Plan
from orchestrator.plan.imported import how_to_import
from orchestrator.plan.only import Only, with_needs
from orchestrator.plan.stage import title_of
from orchestrator.store.content import Content, all_labels
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
    accuracy: float | None = None
    """Test accuracy in percent: of the last epoch of one that is finished, of one that is running
    the last that its run tells."""
    ended: int = 0
    """When it was finished, in milliseconds since 1970; 0 of one that is not."""
    labels: Mapping[str, Any] = field(default_factory=dict)
    """What it is in the grid: network, method, round, seed and the like."""

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        told = {"key": self.key, "state": self.state, "title": self.title, "reason": self.reason}
        labels = {name: one for name, one in self.labels.items() if name != "also"}
        return {**told, "log": list(self.log), "accuracy": self.accuracy, "labels": labels}


def states(tracker: Tracker, grid: str | Content, only: Only | None = None) -> list[State]:
    """The state of every stage of a grid, or of what a file asks for, in the order of its plan.

    Args:
        tracker: of the store.
        grid: its name, or what a file asks for.
        only: of which stages, and of what they need; of all when None.

    Raises:
        ElthError: the store has no such grid, or it has nothing of the kind that is chosen.
    """
    content = tracker.grids.content(grid) if isinstance(grid, str) else grid
    built = _plan(content.text)
    keys = content.keys if only is None else _chosen(content, built, only)
    found = _states(tracker, content, built, keys)
    return [replace(one, labels=keys[one.key]) for one in found]


def _chosen(content: Content, built: Plan, only: Only) -> Mapping[str, Mapping[str, Any]]:
    """The keys of what is chosen, and of what it needs as far as the plan can be made here."""
    called = {key: all_labels(one) for key, one in content.keys.items()}
    name = str(content.experiment.get("name", "this grid"))
    only.check((one for every in called.values() for one in every), name)
    parents = {key: stage.parents for key, stage in built.stages.items()}
    wanted = with_needs(only.keys(called), parents)
    return {key: one for key, one in content.keys.items() if key in wanted}


def _states(
    tracker: Tracker, content: Content, built: Plan, keys: Mapping[str, Mapping[str, Any]]
) -> list[State]:
    tracked = tracker.stages()
    again = reasons(tracker, tracked)
    known = by_key(one for one in tracked if one.key in keys)
    finished = {key: one for key, one in known.items() if one.status == "finished"}
    ended = content.ended(finished)
    known = {key: one for key, one in known.items() if key not in ended}
    roots = _roots(built, {key for key, one in known.items() if one.status == "failed"})
    found: list[State] = []
    logs = 0
    for key, labels in keys.items():
        title = _title(key, labels, built)
        if key in ended:
            found.append(State(key=key, state="ended", title=title, reason=ended[key]))
            continue
        if key not in known:
            found.append(_missing(key, title, built, known, roots))
            continue
        one = known[key]
        if one.stage.is_given:  # which labels alone do not name
            title = one.stage.title
        if one.status == "failed":
            way = "elth run --retry-failed" if one.is_final else "the next elth run"
            lines: tuple[str, ...] = ()
            if logs < _LOGS:
                lines, logs = log_of(tracker, one.run_id), logs + 1
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
        elif one.status == "running":
            found.append(replace(_running(tracker, one), title=title))
        else:
            done = State(key=key, state=one.status, title=title, accuracy=_result(one))
            found.append(replace(done, ended=one.ended))
    return found


def _title(key: str, labels: Mapping[str, Any], built: Plan) -> str:
    """What a stage is called that no run is of; of a plan that cannot be built by its labels."""
    if key in built.stages:
        return built.stages[key].title
    return title_of(labels) if {"method", "seed"} <= labels.keys() else str(labels["network"])


def _result(one: Tracked) -> float | None:
    """The accuracy that a stage is done for; that of a rewind point is none."""
    return None if one.stage.kind == "rewind_point" else one.accuracy


def _running(tracker: Tracker, one: Tracked) -> State:
    """For how long a stage has run, and what is known of its process where that is not here."""
    now = time.time()
    text = f"for {duration(max(now - one.started / 1000, 0.0))}"
    state = State(key=one.key, state="running", title=one.stage.title, reason=text)
    try:
        run = tracker.client.get_run(one.run_id)
    except MlflowException:  # removed since it was listed
        return state
    if one.stage.kind != "rewind_point":
        state = replace(state, accuracy=run.data.metrics.get("test_accuracy"))
    owner = run.data.tags.get("elth.owner", "")
    if is_alive(owner):
        return state
    seen = last_seen(run)
    if seen is None:
        return replace(state, reason=f"{text} by {in_words(owner)}, which cannot be seen from here")
    ago = duration(max(now - seen, 0.0))
    return replace(state, reason=f"{text} by {in_words(owner)}, last sign of life {ago} ago")


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


@functools.lru_cache(maxsize=4)
def _plan(text: str) -> Plan:
    """The plan of a grid as it was run last; an empty one if its file is of another version.

    Or if it names code from outside that is not listed here: a store has nothing run.
    """
    try:
        with plugins.closed():
            experiment = Experiment.model_validate(Content(text=text, keys={}).experiment)
            return plans.build(experiment, is_stored=True)
    except (ElthError, ValidationError):
        return Plan({})


def log_of(tracker: Tracker, run_id: str) -> tuple[str, ...]:
    """The last lines of what a failed run left behind; none where it left nothing."""
    try:
        text = tracker.files.read(run_id, "traceback.txt").decode(errors="replace")
    except (MlflowException, OSError):
        return ()
    # Where one error led to another, the first tells where it began; the last is the reason.
    first = text.split("\nThe above exception was the direct cause of ", 1)[0]
    return tuple(line.rstrip() for line in first.splitlines() if line.strip())[-_LINES:]
