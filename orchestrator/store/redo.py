"""Stages that are done again though they are finished.

A person asks for it by ``elth run --redo``, or a stage that is done needs what a finished one lacks
(``mark_lacking``): the finished run of each stage named is *marked*, and
stays, read by all, until another run of the stage is finished. Then the two are compared by the
digests of what they left, and the old one is deleted, which MLflow can undo. Where they differ, the
runs that were made of the old one are marked first: they are *stale*, and done again in their turn.

A run that was set aside as its files were damaged is compared in the same way with the one that
takes its place, by the digests of what it was; it stays, for ``elth gc``.

All of this is in the store, in an order that lets it be cut off anywhere. As long as a stage has a
marked run beside a new one, it is not settled what the new one means for others, and the stage does
not count as finished; to settle it twice does no harm. What was asked for is a tag of the grid's
run, set before the first mark and removed at the end: the same command, given again, goes on with
the same request, and a stage that was done again for it carries its name and is passed over.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from elth.errors import ElthError
from orchestrator.plan.stage import Stage
from orchestrator.store.board import is_deleted, set_tag
from orchestrator.store.classes import is_mixed
from orchestrator.store.listing import DAMAGED, Tracked, stage_of
from orchestrator.store.marks import (
    ASKED,
    LACKING,
    REDONE,
    STALE,
    TIDIED,
    is_finished,
    mark_of,
    standing,
)
from orchestrator.store.opening import STAGES

if TYPE_CHECKING:
    from orchestrator.store.tracker import Tracker


_NAMED = 5
"""Stages whose titles a note tells."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one command wants done again."""

    grid: str
    name: str
    """Its own, which marks hold."""
    named: tuple[str, ...]
    """Keys of the stages that were named."""
    again: frozenset[str]
    """Those of them that are finished and still to be done again."""
    runs: tuple[str, ...]
    """Runs that are not marked yet."""
    notes: tuple[str, ...]
    """What a person should know."""


COMPARED = "elth.compared"
"""The tag of a run that was set aside, and has been compared with the one that took its place."""

_DAMAGE = "damaged"
"""The request of nobody: a run was set aside."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a stage that was done again."""

    note: str = ""
    """For people; empty if another process has settled it."""
    again: tuple[str, ...] = ()
    """Keys of the stages made of it that are stale now, whoever has settled it."""


def marked(tracker: Tracker) -> dict[str, Run]:
    """The finished runs of a store that are to be done again, by their ids."""
    found = (run for tag in (ASKED, STALE) for run in tracker.search(f"tags.`{tag}` LIKE '%'"))
    return {run.info.run_id: run for run in found if is_finished(run)}


def waiting(
    tracker: Tracker, tracked: Iterable[Tracked], named: Collection[str] = ()
) -> frozenset[str]:
    """Keys of stages that are finished in the store and yet to do.

    Stale ones, those whose new run is not settled, and of those that somebody once asked for only
    the ones that are named now: who asks no more has changed their mind.

    Args:
        tracker: of the store.
        tracked: its stages, as ``Tracker.stages`` lists them.
        named: keys that this command names.
    """
    return frozenset(reasons(tracker, tracked, named))


OUTDATED = "what it is made of came out different when that was done again: elth run does it again"
NAMED = "elth run --redo asked for it: the same command goes on with it"
UNSETTLED = "it was done again, and has yet to be compared with what it was: elth run does that"


def reasons(
    tracker: Tracker, tracked: Iterable[Tracked], named: Collection[str] = ()
) -> dict[str, str]:
    """Why each of the stages that ``waiting`` gives is yet to do, by its key."""
    found = marked(tracker)
    aside = {
        run.data.tags["elth.key"]
        for run in _set_aside(tracker.search(f"tags.`{DAMAGED}` LIKE '%'"))
        if "elth.key" in run.data.tags
    }
    if not found and not aside:
        return {}
    replaced = {one.key for one in tracked if one.status == "finished" and one.run_id not in found}
    result: dict[str, str] = {}
    for run in found.values():
        key = run.data.tags["elth.key"]
        if STALE in run.data.tags:
            result[key] = OUTDATED
        elif key in replaced:
            result.setdefault(key, UNSETTLED)
        elif key in named:
            result.setdefault(key, NAMED)
    for key in aside & replaced:
        result.setdefault(key, UNSETTLED)
    return result


def _set_aside(runs: Iterable[Run]) -> list[Run]:
    """Those of some runs that were set aside, and not compared yet."""
    return [
        run
        for run in runs
        if DAMAGED in run.data.tags and COMPARED not in run.data.tags and not is_finished(run)
    ]


NOTHING = Request(grid="", name="", named=(), again=frozenset(), runs=(), notes=())
"""The request of a command that asks for nothing."""


def request(tracker: Tracker, grid: str, stages: Collection[Stage]) -> Request:
    """Work out what a command wants done again; nothing is written yet.

    It is the same request as an earlier one of the grid that names the same stages and was not
    brought to its end: what was done again for that is not done a second time.
    """
    keys = tuple(sorted(stage.key for stage in stages))
    before = _open(tracker, grid)
    is_same = before.get("stages") == _digest(keys)
    name = str(before["name"]) if is_same else uuid.uuid4().hex[:12]
    again, runs, notes = set(), [], []
    for stage in stages:
        done = [run for run in tracker.runs_of(stage.key) if is_finished(run)]
        stands = standing(done)
        if not done:
            notes.append(f"{stage.title} is not finished, and is done as usual")
        elif stands is not None and stands.data.tags.get(REDONE) == name:
            notes.append(
                f"{stage.title} was done again already, by this command before it was interrupted"
            )
        else:
            again.add(stage.key)
            if stands is not None and len(done) == sum(not mark_of(run) for run in done):
                runs += [str(run.info.run_id) for run in done]
    return Request(
        grid=grid,
        name=name,
        named=keys,
        again=frozenset(again),
        runs=tuple(runs),
        notes=tuple(notes),
    )


def begin(tracker: Tracker, asked: Request) -> None:
    """Write a request: first what it is, then the marks."""
    run = tracker.grids.run(asked.grid)
    if run is None:
        raise ElthError(f"the grid {asked.grid} is no more in the store {tracker.store}")
    content = {"name": asked.name, "stages": _digest(asked.named)}
    set_tag(tracker.client, run.info.run_id, ASKED, json.dumps(content))
    # Of two at once the later one, unless that has been brought to its end by now.
    name = str(_open(tracker, asked.grid).get("name", asked.name))
    for run_id in asked.runs:
        set_tag(tracker.client, run_id, ASKED, name)


def end(tracker: Tracker, asked: Request) -> None:
    """Note that everything was done: to ask for the same stages is a new request then."""
    run = tracker.grids.run(asked.grid)
    if run is not None and _open(tracker, asked.grid).get("stages") == _digest(asked.named):
        with contextlib.suppress(MlflowException):  # another driver was quicker
            tracker.client.delete_tag(run.info.run_id, ASKED)


def _open(tracker: Tracker, grid: str) -> dict[str, object]:
    run = tracker.grids.run(grid)
    with contextlib.suppress(ValueError):
        found = json.loads(run.data.tags.get(ASKED, "{}")) if run is not None else {}
        return found if isinstance(found, dict) else {}
    return {}


def _digest(keys: Iterable[str]) -> str:
    """Which stages a request names, in a tag, of which MLflow cuts off what is too long."""
    return hashlib.sha256(" ".join(keys).encode()).hexdigest()


def below(keys: Collection[str], tracked: Iterable[Tracked]) -> list[Tracked]:
    """The finished stages of a store that were made of some, or of what was made of them."""
    found = [one for one in tracked if one.status == "finished"]
    reached, more = set(keys), True
    while more:
        new = {one.key for one in found if reached & set(one.stage.parents)} - reached
        reached, more = reached | new, bool(new)
    return [one for one in found if one.key in reached - set(keys)]


def mark_lacking(tracker: Tracker, key: str, *, weights: bool = False) -> None:
    """Mark the finished runs of a stage that lack files, as another stage needs what they hold.

    Weights that were tidied away, and files that are not there while those of most others are. They
    are read for all that they have until another run is there. Who does not need what they lack
    leaves them, as the mark is nobody's request.

    Args:
        tracker: of the store.
        key: of the stage.
        weights: whether trained weights are needed, which may never have been kept.

    Raises:
        AwayError: most files of the store are not there: nothing is marked.
    """
    from orchestrator.store.result import OPTIONAL, files_of

    is_looked_at = False
    for run in tracker.runs_of(key):
        if not is_finished(run) or mark_of(run):
            continue
        told = files_of(stage_of(run), run.data.tags)
        never_kept = weights and not set(OPTIONAL) & told.keys()
        if TIDIED not in run.data.tags and not never_kept:
            there = tracker.files.sizes(run.info.run_id, "result")
            if there.keys() >= told.keys():
                continue  # another driver has done it again
            if not is_looked_at:
                tracker.check_files()
                is_looked_at = True
        with _unless_gone(tracker, run.info.run_id):
            set_tag(tracker.client, run.info.run_id, ASKED, LACKING)


# Settling


def settle(tracker: Tracker, stage: Stage, grid: str) -> Outcome:
    """Let the new run of a stage take the place of those that are to be done again.

    Args:
        tracker: of the store.
        stage: one that has been done, or was found done.
        grid: for which grid, for messages.

    Raises:
        MlflowException: the store does not answer; to try again does no harm.
    """
    runs = tracker.runs_of(stage.key)
    old = [run for run in runs if is_finished(run) and mark_of(run)]
    aside = _set_aside(runs)
    new = standing(runs)
    notes = []
    if old and new is not None:
        notes.append(_replace(tracker, stage, old, new, grid))
    if aside and new is not None:
        notes.append(_compare(tracker, stage, aside, new, grid))
    found = (run for run in tracker.search(f"tags.`{STALE}` LIKE '%'") if is_finished(run))
    again = (one.key for one in map(stage_of, found) if stage.key in one.parents)
    return Outcome(note="; ".join(filter(None, notes)), again=tuple(dict.fromkeys(again)))


def generation(tracker: Tracker) -> str:
    """Changes whenever a result takes the place of a different one.

    A result that was read before may then be one that counts no longer.
    """
    experiment = tracker.client.get_experiment(tracker.experiments[STAGES])
    return str(experiment.tags.get(REDONE, ""))


def _replace(tracker: Tracker, stage: Stage, old: Sequence[Run], new: Run, grid: str) -> str:
    client, name, before = tracker.client, mark_of(old[0]), digests(tracker, old[0])
    children: list[Tracked] = []
    is_same = before is not None and before == digests(tracker, new)
    if not is_same:
        client.set_experiment_tag(tracker.experiments[STAGES], REDONE, uuid.uuid4().hex)
        made = [one for one in tracker.stages() if stage.key in one.stage.parents]
        if not any(is_finished(run) and mark_of(run) for run in tracker.runs_of(stage.key)):
            return ""  # another driver was quicker, and some of these may be new by now
        children = _outdate(tracker, made, name)
    tags = {tag for run in old for tag in run.data.tags if tag.startswith("grid.")}
    for tag in sorted(tags - new.data.tags.keys()):
        set_tag(tracker.client, new.info.run_id, tag, "true")
    set_tag(tracker.client, new.info.run_id, REDONE, name)
    for run in old:
        with _unless_gone(tracker, run.info.run_id):
            client.delete_run(run.info.run_id)
    classes = [run.data.tags.get("elth.numerics", "unknown") for run in (old[0], new)]
    if is_same:
        told = " -> ".join(dict.fromkeys(classes))
        return f"{stage.title} came out the same, bit for bit (numerics class {told})"
    return f"{stage.title} {_otherwise(old[0], new, before, classes)}; {_told(children, grid)}"


def _compare(tracker: Tracker, stage: Stage, aside: Sequence[Run], new: Run, grid: str) -> str:
    """Compare what took the place of damaged runs with what these were, as far as their tags tell.

    Where it differs, what was made of them is to be done again: what began before the new one was
    there, as nothing begins from a run that is set aside.
    """
    after, there = digests(tracker, new) or {}, int(new.info.end_time or 0)
    note = ""
    for old in aside:
        before = told(old.data.tags)
        if any(before[part] != after[part] for part in before.keys() & after.keys()):
            made = [
                one
                for one in tracker.stages()
                if stage.key in one.stage.parents and one.started < there
            ]
            if not _set_aside(tracker.runs_of(stage.key)):
                return ""  # another driver was quicker
            client, experiment = tracker.client, tracker.experiments[STAGES]
            client.set_experiment_tag(experiment, REDONE, uuid.uuid4().hex)
            children = _outdate(tracker, made, _DAMAGE)
            classes = [run.data.tags.get("elth.numerics", "unknown") for run in (old, new)]
            note = f"{stage.title}, which was damaged, {_otherwise(old, new, before, classes)}"
            note += f"; {_told(children, grid)}"
            break
    for old in aside:
        with _unless_gone(tracker, old.info.run_id):
            set_tag(tracker.client, old.info.run_id, COMPARED, "true")
    return note


def _outdate(tracker: Tracker, made: Iterable[Tracked], name: str) -> list[Tracked]:
    """Mark stages that were made of what came out different; returns those that were."""
    marked_now = []
    for one in made:
        if one.status in ("finished", "running"):
            with _unless_gone(tracker, one.run_id):
                set_tag(tracker.client, one.run_id, STALE, name)
                marked_now.append(one)
    return marked_now


def told(tags: Mapping[str, str]) -> dict[str, str]:
    """Digests of the parts of a result, as far as the tags of its run tell them."""
    return {
        tag.removeprefix("elth.").removesuffix("_sha256"): value
        for tag, value in tags.items()
        if tag.startswith("elth.") and tag.endswith("_sha256")
    }


def digests(tracker: Tracker, run: Run) -> Mapping[str, str] | None:
    """Digests of the parts of what a run left; None if they are not to be had.

    Runs of before tell that of their mask alone: then its files are read.
    """
    tags = told(run.data.tags)
    if tags.keys() - {"mask"}:
        return tags
    try:
        result = tracker.result_of(stage_of(run), run)
    except ElthError:
        return None
    return result.digests if result.digests.keys() - {"mask"} else None


def _otherwise(old: Run, new: Run, before: Mapping[str, str] | None, classes: Sequence[str]) -> str:
    if before is None:
        text = "was done again, and as nothing of what it left before can be compared, it is taken"
        return f"{text} for different"
    accuracy = [run.data.metrics.get("test_accuracy") for run in (old, new)]
    told = f"; test accuracy {accuracy[0]:.2f} -> {accuracy[1]:.2f} %" if all(accuracy) else ""
    if classes[0] == classes[1] and not is_mixed(classes[0]):
        why = f"in the same numerics class {classes[0]}, where it should be the same"
    else:
        why = f"numerics class {classes[0]} -> {classes[1]}"
    return f"came out different ({why}{told})"


def _told(children: Sequence[Tracked], grid: str) -> str:
    if not children:
        return "nothing was made of it"
    named = ", ".join(one.stage.title for one in children[:_NAMED])
    more = f" and {len(children) - _NAMED} more" if len(children) > _NAMED else ""
    text = f"done again, as made of it: {named}{more}"
    others = sorted({name for one in children if grid not in one.grids for name in one.grids})
    if others:
        text += f" (those of {', '.join(others)} by the next elth run of these)"
    return text


@contextlib.contextmanager
def _unless_gone(tracker: Tracker, run_id: str) -> Iterator[None]:
    """Pass over a run that is deleted meanwhile."""
    try:
        yield
    except MlflowException as error:
        if not is_deleted(tracker.client, run_id, error):
            raise
