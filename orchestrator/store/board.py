"""The board of a store, on which leases are written.

MLflow's tags cannot be compared and set. What is atomic: a parameter of a run is logged once, and
logging it again with another value fails. So the n-th lease of a stage is the parameter
``lease/KEY/N`` of a *board*, and its value the run of the attempt that holds it. Whoever logs it
first has it; the next one is ``N + 1``, and only the holder of the last one publishes.

The board is one run for each 256th of all keys, and a run above them that names each once, in the
same way; that one is named by a tag given with the creation of an experiment, whose name is unique.

People may delete any of these in MLflow's pages. A run that is deleted keeps its parameters, and is
restored where something is to be written to it. One that was removed for good (``mlflow gc``) has a
successor, on which all who meet that agree in the same ways: ``board/PART/2`` beside ``board/PART``
above the boards, the experiment ``elth-leases-root-2`` beside the first. Leases that were on it are
lost, so numbers begin above all that it can have had: who still holds one of those finds that it is
not the last, and publishes nothing.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping
from typing import TypeVar

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage, Run, ViewType
from mlflow.exceptions import MlflowException

from orchestrator.store.away import is_away
from orchestrator.store.opening import MARK, NOTE

T = TypeVar("T")

BOARDS = "elth-leases"

ROOT = "elth-leases-root"
"""The experiment that exists once and names the run above the boards."""

ROOT_TAG = "elth.root"
"""Its tag that does so."""

GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow calls it when a run is not there, or deleted; the second is any wrong value too."""

NOTES = {
    BOARDS: "The leases of elth: which attempt has which stage, as parameters of these runs. "
    "Please do not delete: by them two drivers never do one stage twice.",
    ROOT: "Names the run of `elth-leases` that names the others; it has no runs of its own. Please "
    "do not delete.",
}
"""The descriptions of both, which their runs carry too."""

_ROOT_RUN = "leases"
_ABOVE = "elth.above"
"""The tag of a board that succeeds another: its numbers begin above this one."""

_STEP = 10**6
"""More leases than any stage has."""


class Board:
    """Where the leases of a store are written."""

    def __init__(
        self,
        client: MlflowClient,
        make_experiment: Callable[[str], str],
        artifacts: str | None,
        notes: list[str],
    ) -> None:
        """Prepare; nothing is asked of the store yet.

        Args:
            client: of the store.
            make_experiment: gives the id of an experiment by name, and makes it if need be.
            artifacts: where files of its experiments lie, as of the others; there are none.
            notes: to which is added what a person should know.
        """
        self._client = client
        self._make_experiment = make_experiment
        self._artifacts = artifacts
        self._notes = notes
        self._root = ("", 0)
        """The run above the boards, and how many were there before it."""
        self._home = ""
        """The experiment of the boards, once that is known."""
        self._boards: dict[str, str] = {}
        self._removed: set[str] = set()
        """Runs that were removed for good."""

    def latest(self, key: str) -> tuple[int, str]:
        """The number of a stage's last lease and the run that holds it; none if there was none."""
        above, leases = self._on_board(key, lambda board: self._leases(key, board))
        number = max(leases, default=above)
        return number, leases.get(number, "")

    def holders(self, key: str) -> list[str]:
        """The runs that have held a stage's leases, first to last."""
        _, leases = self._on_board(key, lambda board: self._leases(key, board))
        return [run_id for _, run_id in sorted(leases.items())]

    def take(self, key: str, number: int, run_id: str) -> bool:
        """Take a lease for a run; whether it is its own now."""
        name = f"lease/{key}/{number}"
        return self._on_board(key, lambda board: self._log_once(board, name, run_id)) == run_id

    def is_last(self, key: str, run_id: str) -> bool:
        """Whether a run holds the last lease of a stage.

        Where none is known any more, as its board was removed for good, it takes it anew.
        """
        number, holder = self.latest(key)
        return holder == run_id if holder else self.take(key, number + 1, run_id)

    def on(self, key: str) -> str:
        """The run of the board with the leases of a stage."""
        return self._on_board(key, lambda board: board)

    def prepare(self) -> None:
        """Make the run above the boards before workers come, who would all make one at once."""
        self._find_root()

    def restore(self) -> None:
        """Restore the boards that were deleted, and what names them."""
        known = self._client.get_experiment_by_name(BOARDS)
        if known is not None:
            for run in self._search(str(known.experiment_id), "", ViewType.DELETED_ONLY):
                if run.data.params:  # else it was one too many, which another process made as well
                    self._restore(run.info.run_id)

    def _restore(self, run_id: str) -> None:
        self._client.restore_run(run_id)
        told = f"a run of the experiment '{BOARDS}', which elth needs, was deleted: it is restored"
        if told not in self._notes:
            self._notes.append(told)

    def _leases(self, key: str, board: str) -> tuple[int, dict[int, str]]:
        """Above which number those of a board begin, and the leases of a stage."""
        prefix = f"lease/{key}/"
        data = self._client.get_run(board).data
        leases = {
            int(name.removeprefix(prefix)): run_id
            for name, run_id in data.params.items()
            if name.startswith(prefix)
        }
        return int(data.tags.get(_ABOVE, 0)), leases

    def _on_board(self, key: str, act: Callable[[str], T]) -> T:
        """Act on the board of a stage, or on its successor if it was removed for good."""
        part = key[:2]
        while True:
            if part not in self._boards:
                self._boards[part] = self._find_board(part)
            board = self._boards[part]
            try:
                return act(board)
            except MlflowException as error:
                self._note_removal(board, error)
            del self._boards[part]

    def _note_removal(self, run_id: str, error: MlflowException) -> None:
        """Raise an error again, unless a run turns out to have been removed for good.

        That it is not there may be the word of a proxy, so it is asked for in another way.
        """
        if error.error_code != GONE[0] or self._search(
            self._make_experiment(BOARDS), f"attributes.run_id = '{run_id}'"
        ):
            raise error
        self._removed.add(run_id)
        told = f"a run of the experiment '{BOARDS}' was removed for good: another takes its place"
        if told not in self._notes:
            self._notes.append(told)

    def _find_board(self, part: str) -> str:
        while True:
            root, roots_before = self._find_root()
            try:
                params = self._client.get_run(root).data.params
                break
            except MlflowException as error:
                self._note_removal(root, error)
        for other in {name.split("/")[1] for name in params if name.startswith("board/")}:
            count, run_id = _last_board(params, other)
            if run_id not in self._removed:  # all of them at once: one answer names them all
                self._boards.setdefault(other, run_id)
        count, run_id = _last_board(params, part)
        if run_id and run_id not in self._removed:
            return run_id
        name = _nth(f"board/{part}", count + 1)
        found = self._find_old(f"leases of {part}...", "lease/")
        mine = found or self._create(
            f"leases of {part}...", {_ABOVE: str(_STEP * (1000 * roots_before + count))}
        )
        run_id = self._log_once(root, name, mine)
        if run_id != mine and not found:
            self._client.delete_run(mine)
        return run_id

    def _find_root(self) -> tuple[str, int]:
        if self._root[0] and self._root[0] not in self._removed:
            return self._root
        for before in itertools.count():
            name = _nth(ROOT, before + 1, "-")
            found = self._client.get_experiment_by_name(name)
            if found is None:
                self._make_root(name)
                found = self._client.get_experiment_by_name(name)
            if found is None:
                raise MlflowException(f"the experiment {name} could not be made")
            root = found.tags.get(ROOT_TAG, "")
            if root and root not in self._removed:
                self._root = (root, before)
                break
        return self._root

    def _make_root(self, name: str) -> None:
        found = self._find_old(_ROOT_RUN, "board/")  # its experiment alone may have been removed
        mine = found or self._create(_ROOT_RUN, {})
        tags = {ROOT_TAG: mine, MARK: name, NOTE: NOTES[ROOT]}
        with contextlib.suppress(MlflowException):  # another process has made it
            self._client.create_experiment(name, self._artifacts, tags)
        there = self._client.get_experiment_by_name(name)
        if not found and (there is None or there.tags.get(ROOT_TAG) != mine):
            self._client.delete_run(mine)

    def _find_old(self, name: str, prefix: str) -> str:
        """The newest run of a name that holds something, though nothing names it any more."""
        text = f"attributes.run_name = '{name}'"
        found = self._search(self._experiment(), text)
        held = [run for run in found if any(one.startswith(prefix) for one in run.data.params)]
        newest = max(held, key=lambda run: int(run.info.start_time), default=None)
        return "" if newest is None else str(newest.info.run_id)

    def _experiment(self) -> str:
        self._home = self._home or self._make_experiment(BOARDS)
        return self._home

    def _search(self, experiment: str, text: str, view: int = ViewType.ALL) -> list[Run]:
        return list(self._client.search_runs([experiment], text, view))

    def _create(self, name: str, tags: Mapping[str, str]) -> str:
        given = {NOTE: NOTES[BOARDS], **{key: one for key, one in tags.items() if one != "0"}}
        try:
            run = self._client.create_run(self._experiment(), run_name=name, tags=given)
        except MlflowException as error:
            if is_away(error):
                raise
            self._home = ""  # it was deleted since it was asked for
            run = self._client.create_run(self._experiment(), run_name=name, tags=given)
        self._client.update_run(run.info.run_id, "FINISHED")  # else it would seem to run for ever
        return str(run.info.run_id)

    def _log_once(self, run_id: str, name: str, value: str) -> str:
        """Log a parameter that nobody has logged, on a run that is restored if it was deleted."""
        try:
            return log_once(self._client, run_id, name, value)
        except MlflowException as error:
            is_deleted = error.error_code in GONE and (
                self._client.get_run(run_id).info.lifecycle_stage == LifecycleStage.DELETED
            )
            if not is_deleted:
                raise
        self._restore(run_id)
        return log_once(self._client, run_id, name, value)


def is_deleted(client: MlflowClient, run_id: str, error: MlflowException) -> bool:
    """Whether an error about a run means that it is deleted or not there.

    A deleted run is to MLflow what a name or a value is that is too long, so the run is asked.
    """
    if error.error_code != "INVALID_PARAMETER_VALUE":
        return error.error_code in GONE
    try:
        return bool(client.get_run(run_id).info.lifecycle_stage != LifecycleStage.ACTIVE)
    except MlflowException as second:
        return second.error_code in GONE


def set_tag(client: MlflowClient, run_id: str, name: str, value: str) -> None:
    """Set a tag, which for MLflow is to look and then to insert: of two at once one fails.

    Raises:
        MlflowException: it cannot be set, as its run is deleted, or the store is away.
    """
    try:
        client.set_tag(run_id, name, value)
    except MlflowException as error:
        if is_deleted(client, run_id, error):
            raise
        client.set_tag(run_id, name, value)


def _last_board(params: Mapping[str, str], part: str) -> tuple[int, str]:
    """How many boards a part of all keys has had, and the run of the last one."""
    count, run_id = 0, ""
    while (name := _nth(f"board/{part}", count + 1)) in params:
        count, run_id = count + 1, params[name]
    return count, run_id


def _nth(name: str, number: int, by: str = "/") -> str:
    """The name of the first of some that succeed each other, or of a later one."""
    return name if number == 1 else f"{name}{by}{number}"


def log_once(client: MlflowClient, run_id: str, name: str, value: str) -> str:
    """Log a parameter that nobody has logged; the value that stands then."""
    try:
        client.log_param(run_id, name, value)
    except MlflowException as error:
        stands = client.get_run(run_id).data.params.get(name)
        if error.error_code not in GONE or stands is None:
            raise
        return str(stands)
    return value
