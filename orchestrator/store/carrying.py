"""To carry a grid from one store to another, by a bundle (``store/bundle.py``).

A run that is brought has the times, values, files and tags that it had where it was computed; only
its id is new. A stage that is finished there already stays as it is, and has to be the same: else
what is brought would not be what was made of it.

All of a bundle is checked before anything is written: each byte by sha256, each result by the
checksums of its tensors, and each stage by its key. Then stage by stage is written as by a process
that computes it, with a lease, and the grid last. So it may be cut off anywhere, and goes on by the
same command; and a grid that is in the store is as it was brought.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from elth import plugins
from elth.errors import ElthError
from elth.files import replacing
from orchestrator.experiment.basics import NAME
from orchestrator.plan.ending import Link
from orchestrator.plan.outside import CodeError
from orchestrator.plan.stage import Stage
from orchestrator.store import redo, variants
from orchestrator.store.away import plain
from orchestrator.store.bundle import (
    ABOUT,
    EXPERIMENT,
    FORMAT,
    KEYS,
    LINKS,
    REPORT,
    Bundle,
    Writer,
    dumped,
    files_at,
    listed,
    run_at,
)
from orchestrator.store.content import Change, Content
from orchestrator.store.damage import AbsentError, DamagedError
from orchestrator.store.describing import placed
from orchestrator.store.leases import BEAT, SEEN, Held, Lease, LostError, claim
from orchestrator.store.listing import Tracked, stage_of, tracked
from orchestrator.store.marks import ASKED, REDONE, STALE, is_finished, mark_of
from orchestrator.store.opening import NOTE, STAGES
from orchestrator.store.processes import owner
from orchestrator.store.tracker import RESULT, result_in
from orchestrator.store.trash import LEFT, undo
from orchestrator.store.variants import TAG

if TYPE_CHECKING:
    from orchestrator.store.tracker import Tracker

FROM = "elth.imported"
"""The tag of a run that was brought: by which bundle."""

_OWNER = "elth.owner"
_OF_A_STORE = {_OWNER, BEAT, SEEN, ASKED, STALE, REDONE, FROM}
"""Tags that tell of a run in one store, and not of its stage."""
_OF_A_GRID = ("grid.", TAG, LEFT)

_NOWHERE = "0"
"""In a bundle, the id of the experiment to which links of descriptions lead."""

_BATCH, _FEW = 1000, 100
"""Metrics, and parameters or tags, that MLflow takes at once."""
_NAMED = 5
_PAUSE = 1.0
"""Seconds between two looks at stages that another process is at."""

T = TypeVar("T")


# Out of a store


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    stages: int
    """Finished stages that are in the bundle."""
    missing: int
    """Stages of the grid that are not, as they are not finished, or are stale."""
    stale: int
    """How many of them are finished, and were made of what came out different since, or may have:
    it was done again and is not compared yet."""
    sha256: str
    """What the bundle is known by."""


def export(tracker: Tracker, grid: str, path: Path, asked: Content | None = None) -> Exported:
    """Write a grid as a bundle: beside its place, then renamed.

    Args:
        tracker: of the store.
        grid: its name.
        path: where to.
        asked: what a file asks for, which is then all that is written, without the report.

    Raises:
        ElthError: there is no such grid, a finished stage of it is damaged, or the file cannot be
            written.
    """
    content = asked or tracker.grids.content(grid)
    found: dict[str, Run] = {}
    outcomes: dict[str, Tracked] = {}
    stale: set[str] = set()
    stages = tracker.stages()
    # Of a chain only what comes next is marked; all that follows is made of what came before, too.
    outdated = {one.key for one in redo.below(redo.waiting(tracker, stages), stages)}
    for one in stages:
        if one.key in content.keys and one.status == "finished":
            run = tracker.client.get_run(one.run_id)  # an index may not know the latest marks
            if STALE in run.data.tags or one.key in outdated:
                stale.add(one.key)
                continue
            known = found.get(one.key)
            if is_finished(run) and (known is None or (mark_of(known) and not mark_of(run))):
                found[one.key], outcomes[one.key] = run, one
    stale -= found.keys()
    grids = tracker.grids.run(grid)
    with replacing(path) as file:
        writer = Writer(file)
        writer.text(ABOUT, dumped({"format": FORMAT, "grid": grid}))
        writer.text(EXPERIMENT, content.text.encode())
        writer.text(KEYS, json.dumps(content.keys, indent=1).encode())  # in the order of the plan
        if content.links:
            links = {key: dataclasses.astuple(link) for key, link in content.links.items()}
            writer.text(LINKS, json.dumps(links, indent=1).encode())
        if grids is not None and asked is None and tracker.files.sizes(grids.info.run_id, "report"):
            with tracker.files.fetched(grids.info.run_id, "report") as folder:
                _add_files(writer, REPORT, folder)
        for key in sorted(found):
            _add_stage(tracker, writer, found[key], grid)
        return Exported(
            stages=len(found),
            missing=len(content.keys.keys() - found.keys() - content.ended(outcomes).keys()),
            stale=len(stale),
            sha256=writer.close(),
        )


def _add_stage(tracker: Tracker, writer: Writer, run: Run, grid: str) -> None:
    stage, run_id = stage_of(run), str(run.info.run_id)
    try:
        with tracker.files.fetched(run_id, "") as folder:
            _sound(stage, run_id, run.data.tags, folder / RESULT)
            _add_files(writer, files_at(stage.key), folder)
    except FileNotFoundError as error:
        raise ElthError(f"the files of {stage.title} (run {run_id[:8]}) are not there") from error
    except (MlflowException, OSError) as error:
        raise ElthError(
            f"the files of {stage.title} (run {run_id[:8]}) cannot be had: {plain(error)}; nothing "
            "was exported"
        ) from error
    except (DamagedError, AbsentError) as error:
        raise ElthError(
            f"{error}; nothing was exported: elth verify --set-aside, with --absent for what is "
            "not there, and elth run do it again"
        ) from error
    writer.text(run_at(stage.key), dumped(_record(tracker, run, grid)))


def _add_files(writer: Writer, folder: str, place: Path) -> None:
    for name, path in listed(place):
        with path.open("rb") as file:
            writer.add(folder + name, file, path.stat().st_size)


def _record(tracker: Tracker, run: Run, grid: str) -> dict[str, Any]:
    """What a run says, as JSON values."""
    run_id = run.info.run_id
    points = [
        [name, point.value, point.timestamp, point.step]
        for name in sorted(run.data.metrics)
        for point in tracker.client.get_metric_history(run_id, name)
    ]
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return {
        "name": run.info.run_name,
        "started": run.info.start_time,
        "ended": run.info.end_time,
        "params": run.data.params,
        "tags": {
            name: placed(value, _NOWHERE) if name == NOTE else value
            for name, value in run.data.tags.items()
            if name not in _OF_A_STORE and not name.startswith(_OF_A_GRID)
        },
        "metrics": sorted(points, key=lambda point: (point[0], point[3], point[2])),
        "inputs": [
            {"dataset": dict(one.dataset), "tags": [[tag.key, tag.value] for tag in one.tags]}
            for one in inputs
        ],
    }


def _sound(stage: Stage, run_id: str, tags: Mapping[str, str], place: Path) -> dict[str, str]:
    """The digests of a result that was read; none if code from outside that it needs is not here.

    Raises:
        DamagedError: it is not what was written.
        AbsentError: files of it are not there.
    """
    if not place.is_dir():
        raise AbsentError(stage.key, f"the result of {stage.title} is not there")
    try:
        with plugins.closed():  # a store has nothing run
            return result_in(place, stage, run_id, tags).digests
    except CodeError:
        return {}


# Into a store


@dataclass(frozen=True, kw_only=True)
class _Brought:
    """A stage of a bundle."""

    stage: Stage
    digests: Mapping[str, str]
    """sha256 of each part of its result."""
    is_read: bool
    """Whether they are of what was read; else code from outside that this needs is not here."""
    accuracy: float | None
    numerics: str


@dataclass(frozen=True, kw_only=True)
class Cargo:
    """A bundle that was checked."""

    bundle: Bundle
    grid: str
    """The name that the grid shall have."""
    content: Content
    stages: Mapping[str, _Brought]
    """Its stages by their keys, parents first."""

    @property
    def unread(self) -> int:
        """Stages whose tensors could not be looked at."""
        return sum(not one.is_read for one in self.stages.values())


def check(bundle: Bundle, name: str | None = None) -> Cargo:
    """Check all of a bundle, without a store.

    Args:
        bundle: what is to be imported.
        name: another name for the grid.

    Raises:
        ElthError: a byte of it is not what was written, or it is of another version.
    """
    bundle.check()
    about = bundle.json(ABOUT)
    if about.get("format") != FORMAT:
        raise ElthError(
            f"{bundle.path} has bundle format {about.get('format')!r}; this version reads {FORMAT}"
        )
    grid = name or bundle.text(ABOUT, lambda _: str(about["grid"]))
    if not re.fullmatch(NAME, grid):
        raise ElthError(f"'{grid}' is no name of a grid: take letters, digits, - and _")
    text = bundle.text(EXPERIMENT, bytes.decode)
    content = Content(text=text, keys=bundle.json(KEYS))
    if bundle.below(LINKS):
        content = dataclasses.replace(content, links=bundle.text(LINKS, _links))
    bundle.text(KEYS, lambda _: (content.places, content.seeds))
    content = bundle.text(EXPERIMENT, lambda _: _named(content, name))
    held = set(bundle.stages())
    strange = held - content.keys.keys()
    if strange:
        raise ElthError(f"{bundle.path}: {KEYS} does not name the stage {min(strange)}")
    return Cargo(
        bundle=bundle,
        grid=grid,
        content=content,
        stages={key: _brought(bundle, key) for key in content.keys if key in held},
    )


def _links(content: bytes) -> dict[str, Link]:
    plain = json.loads(content)
    return {key: Link(tuple(parents), after) for key, (parents, after) in plain.items()}


def _named(content: Content, name: str | None) -> Content:
    """A grid under another name, if one is given."""
    plain, _ = content.experiment, content.stop
    if not plain:
        raise ValueError("it holds no experiment")
    if name is None or plain.get("name") == name:
        return content
    text = yaml.safe_dump({**plain, "name": name}, sort_keys=False, allow_unicode=True)
    return dataclasses.replace(content, text=text)


def _brought(bundle: Bundle, key: str) -> _Brought:
    """A stage of a bundle, with its result read."""
    name, place = run_at(key), files_at(key) + RESULT
    record = bundle.json(name)
    stage, tags, accuracy = bundle.text(name, lambda _: _understood(record))
    if stage.key != key:
        raise ElthError(
            f"{bundle.path}: {name} is of the stage {stage.key[:12]}, {stage.title}: another "
            "version has made it, or it is not what elth export wrote; nothing was imported"
        )
    with tempfile.TemporaryDirectory(prefix="elth-") as here:
        bundle.extract(files_at(key), Path(here))
        try:
            digests = _sound(stage, key, tags, Path(here) / RESULT)
        except (DamagedError, AbsentError) as error:
            raise ElthError(f"{bundle.path}: {place}: {error}; nothing was imported") from error
    told = redo.told(tags)
    for part, digest in digests.items():
        if told.get(part, digest) != digest:
            raise ElthError(
                f"{bundle.path}: {place}: the checksum of the {part} of {stage.title} is not that "
                f"which {name} tells; nothing was imported"
            )
    return _Brought(
        stage=stage,
        digests={**told, **digests},
        is_read=bool(digests),
        accuracy=accuracy,
        numerics=tags.get("elth.numerics", "unknown"),
    )


def _understood(record: Mapping[str, Any]) -> tuple[Stage, dict[str, str], float | None]:
    """The stage of a record, its tags and its accuracy; all else of it is looked at.

    Raises:
        KeyError, TypeError, ValueError: it says something else.
    """
    texts = [*record["params"].items(), *record["tags"].items()]
    if not all(isinstance(one, str) for pair in texts for one in pair):
        raise TypeError("parameters and tags are texts")
    _ = int(record["started"]), int(record["ended"]), _inputs(record)
    stage = Stage.of(json.loads(record["tags"]["elth.stage"]))
    accuracy = [one for one in _metrics(record) if one.key == "test_accuracy"]
    last = max(accuracy, key=lambda one: (one.step, one.timestamp), default=None)
    return stage, dict(record["tags"]), last.value if last is not None else None


def _metrics(record: Mapping[str, Any]) -> list[Metric]:
    return [
        Metric(str(name), float(value), int(at), int(step))
        for name, value, at, step in record["metrics"]
    ]


def _inputs(record: Mapping[str, Any]) -> list[DatasetInput]:
    return [
        DatasetInput(Dataset(**one["dataset"]), [InputTag(*pair) for pair in one["tags"]])
        for one in record["inputs"]
    ]


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """What an import does to a store."""

    cargo: Cargo
    change: Change
    there: Mapping[str, str]
    """Runs of stages that are finished in the store, by key: they stay as they are."""
    note: str = ""
    """What a person should know of what was found there; empty if there is nothing."""


def arrive(tracker: Tracker, cargo: Cargo, *, replace: bool = False) -> Arrival:
    """Compare a bundle with a store.

    Nothing is written, but for what a removal of the grid had begun that was cut off: that is taken
    back, as who imports the grid wants it.

    Args:
        tracker: of the store.
        cargo: the bundle.
        replace: whether the grid of its name shall be what the bundle holds alone.

    Raises:
        ElthError: the store has another result of one of its stages, or its grid would lose cells.
    """
    change = tracker.grids.change_by(cargo.grid, cargo.content, replace=replace)
    if change.refusal:
        raise ElthError(change.refusal)
    note = undo(tracker, cargo.grid)
    there: dict[str, str] = {}
    differ = []
    for one in tracker.stages():
        if one.key in cargo.stages and one.status == "finished" and one.key not in there:
            there[one.key] = one.run_id
            brought = cargo.stages[one.key]
            if not _is_same(tracker, one, brought):
                differ.append(f"{one.stage.title} ({one.numerics} there, {brought.numerics} here)")
    if differ:
        more = f" and {len(differ) - _NAMED} more" if len(differ) > _NAMED else ""
        raise ElthError(
            f"the store {tracker.store} has other results of {len(differ)} stages of "
            f"{cargo.bundle.path}: {', '.join(differ[:_NAMED])}{more}. What is finished is kept, "
            "and what is brought was made of something else: nothing was imported; import it into "
            "another store"
        )
    return Arrival(cargo=cargo, change=change, there=there, note=note)


def _is_same(tracker: Tracker, there: Tracked, brought: _Brought) -> bool:
    """Whether two runs of a stage left the same, by all that both tell of."""
    run = tracker.client.get_run(there.run_id)
    digests = redo.digests(tracker, run) or redo.told(run.data.tags)
    shared = digests.keys() & brought.digests.keys()
    return there.accuracy == brought.accuracy and all(
        digests[part] == brought.digests[part] for part in shared
    )


def bring(tracker: Tracker, arrival: Arrival) -> Change:
    """Write what a bundle brings; returns what became of the grid.

    Raises:
        ElthError: another process is at one of the stages, or the store or the disk does not take
            it; the same command goes on.
    """
    cargo, grid = arrival.cargo, arrival.change.grid
    tracker.grids.join(arrival.there.values(), grid)
    left = {key: _Watch() for key in cargo.stages if key not in arrival.there}
    while left:
        before = len(left)
        for key, watch in list(left.items()):
            if _bring(tracker, cargo, key, grid, watch):
                del left[key]
        busy = [cargo.stages[key].stage.title for key, one in left.items() if one.changes > 1]
        if busy:
            raise ElthError(
                f"another process is at {', '.join(busy[:_NAMED])} in the store {tracker.store}: "
                "give the same command again once it has ended"
            )
        if len(left) == before:
            time.sleep(_PAUSE)
    change = tracker.grids.adopt(
        arrival.change, str(cargo.content.experiment.get("description", ""))
    )
    variants.tell(tracker, grid, change.after)
    if change.after == cargo.content:
        with tempfile.TemporaryDirectory(prefix="elth-") as here:
            if cargo.bundle.extract(REPORT, Path(here)):
                tracker.grids.add_report(grid, sorted(Path(here).iterdir()))
    return change


@dataclass
class _Watch:
    """What was seen of an attempt that another process is at, or was."""

    token: str = ""
    since: float = 0.0
    changes: int = -1

    def see(self, token: str) -> None:
        if token != self.token:
            self.token, self.since, self.changes = token, time.monotonic(), self.changes + 1

    @property
    def seen(self) -> tuple[str, float] | None:
        return (self.token, time.monotonic() - self.since) if self.token else None


def _bring(tracker: Tracker, cargo: Cargo, key: str, grid: str, watch: _Watch) -> bool:
    """Write a stage; whether it is finished in the store now, by whom ever."""
    brought, record = cargo.stages[key], cargo.bundle.json(run_at(key))
    claimed = claim(
        tracker,
        brought.stage,
        grid=grid,
        driver=owner(),
        since=time.monotonic(),
        watched=watch.seen,
        started=int(record["started"]),
    )
    if isinstance(claimed, Held):
        watch.see(claimed.token)
        return False
    if isinstance(claimed, Run):
        if not _is_same(tracker, tracked(claimed), brought):
            raise ElthError(
                f"another process has finished {brought.stage.title} in the store {tracker.store} "
                "meanwhile, with another result than that which was to be imported"
            )
        tracker.grids.join([claimed.info.run_id], grid)
        return True
    try:
        _write(tracker, cargo, key, record, claimed)
    except BaseException as error:
        claimed.give_up(lost=isinstance(error, LostError))
        if isinstance(error, LostError):  # look again who has it
            return False
        raise
    claimed.end()
    if claimed.is_again:
        redo.settle(tracker, brought.stage, grid)
    return True


def _write(
    tracker: Tracker, cargo: Cargo, key: str, record: Mapping[str, Any], lease: Lease
) -> None:
    """Write all of a run: its files first, and last that it is finished."""
    client, run_id = tracker.client, lease.run_id
    with tempfile.TemporaryDirectory(prefix="elth-") as here:
        cargo.bundle.extract(files_at(key), Path(here))
        tracker.files.add(run_id, Path(here))
    tags = {**record["tags"], FROM: cargo.bundle.sha256}
    if NOTE in tags:
        tags[NOTE] = placed(tags[NOTE], tracker.experiments[STAGES])
    for name in client.get_run(run_id).data.tags:  # of this machine, and not of that of origin
        if name not in tags and name not in _OF_A_STORE and not name.startswith(_OF_A_GRID):
            client.delete_tag(run_id, name)
    params = [Param(*pair) for pair in record["params"].items()]
    for params_now in _parts(params, _FEW):
        client.log_batch(run_id, params=params_now)
    for tags_now in _parts([RunTag(*pair) for pair in tags.items()], _FEW):
        client.log_batch(run_id, tags=tags_now)
    for metrics_now in _parts(_metrics(record), _BATCH):
        client.log_batch(run_id, metrics=metrics_now)
    inputs = _inputs(record)
    if inputs:
        client.log_inputs(run_id, datasets=inputs)
    if lease.is_lost():
        raise LostError(f"run {run_id} has lost its lease")
    client.set_terminated(run_id, "FINISHED", int(record["ended"]))


def _parts(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (values[i : i + size] for i in range(0, len(values), size))
