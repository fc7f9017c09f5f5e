"""Grids in the store: what each consists of, and its last report.

Each grid has a run of its own in ``elth-grids``, with the resolved experiment, the keys of its
plan, and the last report. The runs of its stages are tagged with it, for MLflow's pages.

What a grid consists of has numbered versions. Each is a folder that one driver has written, named
by the parameter ``content/N`` of the grid's run. MLflow logs a parameter once: of two drivers that
would both make version N one succeeds, and the other looks again at what it would add to, so that
what it has not seen is not lost. A grid of before has one version, with neither folder nor number.
Which run is a grid's is settled in the same way, on the board (``store/board.py``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from pydantic import ValidationError

from elth import plugins
from elth.errors import ElthError
from orchestrator.experiment import NAME, Experiment
from orchestrator.plan import Plan, Stage, build
from orchestrator.plan.ending import Link, links_of
from orchestrator.store.address import Store
from orchestrator.store.away import is_away, plain
from orchestrator.store.board import Board, is_deleted, log_once, set_tag
from orchestrator.store.content import Change, Content, grown, joined, keys_of
from orchestrator.store.files import Files
from orchestrator.store.listing import Listing, Tracked, pages
from orchestrator.store.opening import NOTE
from orchestrator.store.processes import is_gone
from orchestrator.store.provenance import environment

GRIDS = "elth-grids"
KEEP = "Please do not delete it: elth finds the grid by it."
"""What the run of a grid says of itself."""

REMOVED = "elth.removed"
"""The tag of a run that elth itself has deleted, as it was told to: it is not taken back by itself.

Its value is the name of the removal: see ``trash``."""

_EXPERIMENT = "experiment.yaml"
_KEYS = "keys.json"
_LINKS = "links.json"
_VERSION = "content/"
_NUMBER = "elth.grid.number"
"""The tag that tells, where several runs have a grid's name, which of them came last."""
_DRIVER = "elth.driver."
"""What the tags begin with by which drivers tell that they run a grid."""
_JOINED = "joined.json"
_JOIN = 1000


class Grids:
    """The grids of a store."""

    def __init__(
        self,
        client: MlflowClient,
        files: Files,
        experiment: str,
        store: Store,
        board: Board,
        listing: Listing,
    ) -> None:
        """Prepare; nothing is asked of the store yet.

        Args:
            client: of the store.
            files: of its runs.
            experiment: the id of ``elth-grids``.
            store: for messages.
            board: where it is settled which run is a grid's.
            listing: of the stages; it is forgotten where a run turns out to be gone.
        """
        self._client = client
        self._files = files
        self._experiment = experiment
        self._store = store
        self._board = board
        self._listing = listing

    def _search(self, text: str) -> Iterator[Run]:
        for page in pages(self._client, self._experiment, text):
            yield from page

    # Reading

    def run(self, grid: str) -> Run | None:
        """The run that holds a grid's experiment, keys and report."""
        if not re.fullmatch(NAME, grid):
            return None
        found = self._search(f"tags.`elth.grid` = '{grid}'")
        return max(found, key=_number, default=None)

    def is_begun(self, grid: str) -> bool:
        """Whether a grid was begun to the end, so that it has keys."""
        run = self.run(grid)
        return run is not None and _is_begun(run)

    def runs(self, grid: str) -> list[Run]:
        """All runs of a grid's name that are not deleted; ``run`` gives the one that counts."""
        return list(self._search(f"tags.`elth.grid` = '{grid}'"))

    def drivers(self, grid: str) -> list[str]:
        """The processes that run a grid, as ``processes.owner`` told; some may have ended."""
        tags = (run.data.tags for run in self.runs(grid))
        return [who for some in tags for tag, who in some.items() if tag.startswith(_DRIVER)]

    @contextlib.contextmanager
    def driven(self, grid: str, driver: str) -> Iterator[None]:
        """Tell that a process runs a grid, until the block ends.

        Raises:
            ElthError: the grid is not there, or the store takes nothing.
        """
        run = self._known(grid)
        run_id, tag = run.info.run_id, _DRIVER + hashlib.sha256(driver.encode()).hexdigest()[:8]
        for name, who in run.data.tags.items():
            if name.startswith(_DRIVER) and is_gone(who):
                with contextlib.suppress(MlflowException):  # another driver was quicker
                    self._client.delete_tag(run_id, name)
        try:
            self._client.set_tag(run_id, tag, driver)
        except MlflowException as error:
            raise ElthError(f"cannot write to the store {self._store}: {plain(error)}") from error
        try:
            yield
        finally:
            with contextlib.suppress(MlflowException):
                self._client.delete_tag(run_id, tag)

    def names(self) -> list[str]:
        """Names of the grids that the store knows."""
        return sorted({run.data.tags["elth.grid"] for run in self._search("")})

    def keys(self, grid: str) -> dict[str, dict[str, Any]]:
        """The keys of a grid, each with what it is in this grid: ``Content.keys``.

        Raises:
            ElthError: the store has no such grid; the message says which it has.
        """
        return self._keys(grid, self._known(grid))

    def experiment(self, grid: str) -> dict[str, Any]:
        """The experiment of a grid, with the seeds of all its stages, as plain values.

        Raises:
            ElthError: the store has no such grid; the message says which it has.
        """
        return self._content(grid, self._known(grid), keys={}).experiment

    def content(self, grid: str) -> Content:
        """What a grid consists of: its experiment and its keys, of one version.

        Raises:
            ElthError: the store has no such grid; the message says which it has.
        """
        run = self._known(grid)
        return self._content(grid, run, keys=self._keys(grid, run))

    def _known(self, grid: str) -> Run:
        run = self.run(grid)
        if run is None:
            if self._deleted(grid) is not None:
                raise ElthError(
                    f"the run of the grid '{grid}' in the store {self._store} is deleted (in "
                    "MLflow's pages?), and nothing is lost: elth run with its file takes it back"
                )
            known = ", ".join(self.names()) or "none"
            raise ElthError(f"the store {self._store} has no grid '{grid}' (it has: {known})")
        return run

    def _keys(self, grid: str, run: Run) -> dict[str, dict[str, Any]]:
        text = self._file(grid, run, f"{self._folder(grid, run)}{_KEYS}")
        try:
            return dict(json.loads(text))
        except (ValueError, TypeError) as error:  # no JSON, or of another form
            raise self._half_begun(grid) from error

    def _content(self, grid: str, run: Run, keys: Mapping[str, Mapping[str, Any]]) -> Content:
        text = self._file(grid, run, f"{self._folder(grid, run)}{_EXPERIMENT}")
        content = Content(text=text, keys=keys)
        try:  # refused here, where it can be told of which grid it is
            if content.stop is None:
                return content
            plain = json.loads(self._file(grid, run, f"{self._folder(grid, run)}{_LINKS}"))
            links = {key: Link(tuple(parents), after) for key, (parents, after) in plain.items()}
        except ElthError:
            raise
        except (ValueError, TypeError, AttributeError) as error:  # no JSON, or of another form
            raise self._half_begun(grid) from error
        return dataclasses.replace(content, links=links)

    # Beginning and growing

    def take_back(self, grid: str) -> str:
        """Restore the run of a grid, if it was deleted in MLflow's pages.

        Returns:
            what a person should know; empty if nothing was done.
        """
        found = self._deleted(grid) if self.run(grid) is None else None
        if found is None:
            return ""
        self._client.restore_run(found.info.run_id)
        return (
            f"the run of the grid '{grid}', with what the grid holds, was deleted: it is restored "
            "(--replace lets the grid be this file alone)"
        )

    def settle(self) -> int:
        """Delete again, of runs that were all restored, those that were deleted before; how many.

        Of several of one grid the last was there.
        """
        by_name: dict[str, list[Run]] = {}
        for run in self._search(""):
            by_name.setdefault(run.data.tags.get("elth.grid", ""), []).append(run)
        by_name.pop("", None)  # of strangers
        gone = []
        for runs in by_name.values():
            last = max(runs, key=lambda run: (_number(run), run.info.start_time))
            gone += [run for run in runs if run is not last or REMOVED in run.data.tags]
        for run in gone:
            self._client.delete_run(run.info.run_id)
        return len(gone)

    def _deleted(self, grid: str) -> Run | None:
        """The last run of a grid that was deleted; not one that elth has deleted itself."""
        if not re.fullmatch(NAME, grid):
            return None
        text = f"tags.`elth.grid` = '{grid}'"
        found = pages(self._client, self._experiment, text, view=ViewType.DELETED_ONLY)
        begun = [run for page in found for run in page if _is_begun(run)]
        begun = [run for run in begun if REMOVED not in run.data.tags]
        return max(begun, key=lambda run: (_number(run), run.info.start_time), default=None)

    def change(self, experiment: Experiment, plan: Plan, *, replace: bool = False) -> Change:
        """What a plan would make of the grid of its name; nothing is written.

        Raises:
            ElthError: what the grid holds is not to be had.
        """
        return self._change(self.run(experiment.name), experiment, plan, replace=replace)

    def change_by(self, grid: str, asked: Content, *, replace: bool = False) -> Change:
        """What a grid from another store would make of the one of this name; nothing is written.

        Raises:
            ElthError: what the grid holds is not to be had.
        """
        return self._change_by(self.run(grid), grid, asked, replace=replace)

    def _change(
        self, run: Run | None, experiment: Experiment, plan: Plan, *, replace: bool
    ) -> Change:
        asked = Content.of(experiment, plan)
        grow = functools.partial(grown, experiment=experiment, plan=plan)
        return self._worked_out(run, experiment.name, asked, grow, replace=replace)

    def _change_by(self, run: Run | None, grid: str, asked: Content, *, replace: bool) -> Change:
        grow = functools.partial(joined, asked=asked)
        change = self._worked_out(run, grid, asked, grow, replace=replace)
        return dataclasses.replace(change, renamed_by="--name OTHER")

    def _worked_out(
        self,
        run: Run | None,
        name: str,
        asked: Content,
        grow: Callable[[Content], Content],
        *,
        replace: bool,
    ) -> Change:
        before, is_whole = None, True
        if run is not None:
            try:
                before, is_whole = self._whole_or_mended(name, run)
            except ElthError as error:
                if is_away(error):
                    raise
                if _is_begun(run) and not replace:
                    raise ElthError(
                        f"what the grid '{name}' in {self._store} holds is not to be had, as its "
                        "files are gone or damaged: put them back, or let it be what this file "
                        "says by --replace"
                    ) from error
        change = Change(
            grid=name,
            store=str(self._store),
            asked=asked,
            before=before,
            after=asked if before is None or replace else grow(before),
            replaces=replace,
            seen=_seen(run),
            mends=not is_whole,
        )
        return dataclasses.replace(change, has_failed=self._has_failed(change, run))

    def _has_failed(self, change: Change, run: Run | None) -> bool:
        """Whether all that would be lost are stages that failed, or were never begun.

        Cells stay, with other results; and no driver is at it, as far as can be told.
        """
        if run is None or not change.refusal or change.dropped:
            return False
        tags = run.data.tags.items()
        if any(name.startswith(_DRIVER) and not is_gone(who) for name, who in tags):
            return False
        lost = {key for _, key in change.lost}
        return {one.status for one in self._listing.read() if one.key in lost} == {"failed"}

    def _whole_or_mended(self, grid: str, run: Run) -> tuple[Content, bool]:
        """What a grid consists of; if one of its files is gone or damaged, as the other tells it.

        Raises:
            ElthError: both are.
        """
        keys: Mapping[str, Mapping[str, Any]] = {}
        try:
            keys = self._keys(grid, run)
            return self._content(grid, run, keys=keys), True
        except ElthError as error:
            if is_away(error):
                raise
            if keys:
                return Content(text="", keys=keys), False
            plain = self._content(grid, run, keys={}).experiment
            try:
                with plugins.closed():  # a store has nothing run
                    experiment = Experiment.model_validate(plain)
                    return Content.of(experiment, build(experiment, is_stored=True)), False
            except (ElthError, ValidationError):  # it is of another version, or its data is gone
                raise error from None

    def extend(self, experiment: Experiment, plan: Plan, change: Change) -> Change:
        """Add a plan to the grid of its name, which is begun if need be; returns what came of it.

        Args:
            experiment: the experiment of the plan.
            plan: what the grid shall hold.
            change: what ``change`` told of it, which is worked out anew if the grid is another now.

        Raises:
            ElthError: the grid would lose something (see ``Change.refusal``); nothing is written.
        """

        def anew(run: Run | None) -> Change:
            return self._change(run, experiment, plan, replace=change.replaces)

        return self._extend(change, anew, experiment.description)

    def adopt(self, change: Change, text: str) -> Change:
        """Add a grid from another store to the one of its name; returns what came of it.

        Args:
            change: what ``change_by`` told of it, which is worked out anew if need be.
            text: its description.

        Raises:
            ElthError: the grid would lose something (see ``Change.refusal``); nothing is written.
        """

        def anew(run: Run | None) -> Change:
            return self._change_by(run, change.grid, change.asked, replace=change.replaces)

        return self._extend(change, anew, text)

    def _extend(self, change: Change, anew: Callable[[Run | None], Change], text: str) -> Change:
        while True:
            run = self.run(change.grid)
            if change.seen != _seen(run):
                change = anew(run)
            elif change.has_failed:  # it may have been done again since
                self._listing.forget()
                now = dataclasses.replace(change, has_failed=False)
                change = dataclasses.replace(now, has_failed=self._has_failed(now, run))
            if change.refusal:
                raise ElthError(change.refusal)
            if change.after == change.before and not change.mends:
                return change
            home = self._home(change.grid)
            # Else another driver has come first, and what it added is not in this change.
            is_it = run is None or run.info.run_id == home.info.run_id
            is_as_seen = is_it and _version(home) == change.seen[1]
            if is_as_seen and self._write(home, change.after, text):
                return change

    def open(
        self,
        grid: str,
        resolved: str,
        plan: Mapping[str, Stage],
        text: str,
        also: Mapping[str, Sequence[Mapping[str, Any]]] = {},
    ) -> str:
        """Let a grid be this, whatever it was; returns the id of its run. See ``extend``."""
        content = Content(text=resolved, keys=keys_of(plan, also), links=links_of(plan))
        while True:
            run = self._home(grid)
            if self._write(run, content, text):
                return str(run.info.run_id)

    def _write(self, run: Run, content: Content, text: str) -> bool:
        """Write the next version of a grid; whether it is that, and no other driver's."""
        run_id = str(run.info.run_id)
        name = f"{_VERSION}{_version(run) + 1}"
        folder = f"{name}-{uuid.uuid4().hex[:12]}/"
        self._log_file(run_id, f"{folder}{_EXPERIMENT}", content.text)
        self._log_file(run_id, f"{folder}{_KEYS}", json.dumps(content.keys))
        if content.stop is not None:
            links = {key: dataclasses.astuple(link) for key, link in content.links.items()}
            self._log_file(run_id, f"{folder}{_LINKS}", json.dumps(links))
        if log_once(self._client, run_id, name, folder) != folder:
            return False
        grid = run.data.tags["elth.grid"]
        set_tag(self._client, run_id, NOTE, _note(grid, len(content.keys), text))
        self._client.set_terminated(run_id, "FINISHED")
        return True

    def _home(self, grid: str) -> Run:
        """The run of a grid that all who write agree on; it is made if there is none."""
        key = hashlib.sha256(f"grid {grid}".encode()).hexdigest()
        while True:
            number, run_id = self._board.latest(key)
            found = list(self._search(f"tags.`elth.grid` = '{grid}'"))
            for run in found:
                if run.info.run_id == run_id:
                    if _NUMBER not in run.data.tags:
                        set_tag(self._client, run_id, _NUMBER, str(number))
                    return run
            # None is settled, or the one that was is deleted.
            mine = found[0] if found else self._create(grid)
            if not self._board.take(key, number + 1, mine.info.run_id) and not found:
                self._client.delete_run(mine.info.run_id)

    def _create(self, grid: str) -> Run:
        tags = {"elth.grid": grid, **environment()}
        return self._client.create_run(self._experiment, run_name=grid, tags=tags)

    # Files

    def _folder(self, grid: str, run: Run) -> str:
        """The folder of a grid's latest version, as part of a file's name."""
        number = _version(run)
        folder = run.data.params.get(f"{_VERSION}{number}", "")
        if number and not re.fullmatch(rf"{_VERSION}\d+-[0-9a-f]+/", folder):
            raise self._half_begun(grid)  # it is of somebody else, and might lead out
        return folder

    def _file(self, grid: str, run: Run, name: str) -> str:
        try:
            text = self._files.read(run.info.run_id, name).decode()
            sums = [tag for tag in run.data.tags if tag.startswith(_checked(name, ""))]
            if sums and _checked(name, text) not in sums:
                raise ValueError(f"{name} is damaged: its checksum is of no file that was written")
            return text
        except ElthError:  # it says itself what is in the way
            raise
        except (MlflowException, OSError, ValueError) as error:
            if is_away(error):
                raise
            raise self._half_begun(grid) from error

    def _log_file(self, run_id: str, name: str, text: str) -> None:
        """Write a file of a grid. Of two drivers that do so at once, either may be the last."""
        set_tag(self._client, run_id, _checked(name, text), "true")
        self._files.write(run_id, name, text.encode())

    def _half_begun(self, grid: str) -> ElthError:
        return ElthError(
            f"the grid '{grid}' in the store {self._store} was never begun to the end, or "
            "its files are gone: give elth run with its file again"
        )

    def add_report(self, grid: str, files: Iterable[Path]) -> None:
        """Log the files of a report with the grid's run.

        Not their folder: other drivers may be writing there.
        """
        run = self.run(grid)
        if run is not None:
            for file in files:
                self._files.add(run.info.run_id, file, "report")

    def join(self, run_ids: Iterable[str], grid: str) -> None:
        """Tag runs as belonging to a grid, which MLflow's pages show them by.

        Raises:
            ElthError: a run has been deleted.
        """
        for run_id in run_ids:
            try:
                set_tag(self._client, run_id, f"grid.{grid}", "true")
            except MlflowException as error:
                if not is_deleted(self._client, run_id, error):
                    raise
                self._listing.forget()
                raise ElthError(
                    f"run {run_id} has been deleted from the store {self._store} meanwhile: give "
                    "the same command again, and its stage is done again"
                ) from error

    def join_finished(self, finished: Iterable[Tracked], grid: str) -> None:
        """Tag those of some finished stages as a grid's that are not tagged yet.

        The grid's run holds a list of them, as to read all their tags would take long.

        Raises:
            ElthError: a run has been deleted.
        """
        rest = [one.run_id for one in finished if grid not in one.grids]
        run = self.run(grid) if rest else None
        if run is None:
            return
        joined = set()
        with contextlib.suppress(ElthError, ValueError):
            joined = set(json.loads(self._file(grid, run, _JOINED)))
        rest = [run_id for run_id in rest if run_id not in joined]
        for i in range(0, len(rest), _JOIN):
            self.join(rest[i : i + _JOIN], grid)
            joined.update(rest[i : i + _JOIN])
            self._log_file(run.info.run_id, _JOINED, json.dumps(sorted(joined)))


def _note(grid: str, count: int, text: str) -> str:
    """The description of a grid's run: what its config says of it, and what it is."""
    return f"{text}\n\n".lstrip() + (
        f"The grid `{grid}` of elth: {count} stages, which carry the tag `grid.{grid}`. `elth "
        f"report {grid}` prints its tables; those of the last report are files of this run. " + KEEP
    )


def _version(run: Run) -> int:
    """The number of a grid's latest version; 0 for a grid of before."""
    texts = [n.removeprefix(_VERSION) for n in run.data.params if n.startswith(_VERSION)]
    return max((int(text) for text in texts if text.isdecimal()), default=0)


def _number(run: Run) -> int:
    """How many runs of a grid's name came before it, as far as they were settled on the board."""
    text = run.data.tags.get(_NUMBER, "")
    return int(text) if text.isdecimal() else 0


def _seen(run: Run | None) -> tuple[str, int]:
    """What a change is worked out from: the run of a grid and its version."""
    return (str(run.info.run_id), _version(run)) if run is not None else ("", 0)


def _is_begun(run: Run) -> bool:
    """Whether a grid was begun to the end: its files are written before what tells of them."""
    tags = run.data.tags
    return _version(run) > 0 or any(tag.startswith(_checked(_KEYS, "")) for tag in tags)


def _checked(name: str, text: str) -> str:
    """The tag that tells the checksum of a grid's file."""
    return f"elth.sha256.{name}." + (hashlib.sha256(text.encode()).hexdigest() if text else "")
