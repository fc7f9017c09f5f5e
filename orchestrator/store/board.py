"""The board of a store, on which leases are written.

MLflow's tags cannot be compared and set. What is atomic: a parameter of a run is logged once, and
logging it again with another value fails. So the n-th lease of a stage is the parameter
``lease/KEY/N`` of a *board*, and its value the run of the attempt that holds it. Whoever logs it
first has it; the next one is ``N + 1``, and only the holder of the last one publishes.

The board is one run for each 256th of all keys, and a run above them that names each once, in the
same way; that one is named by a tag given with the creation of an experiment, whose name is unique.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException

BOARDS = "elth-leases"

ROOT = "elth-leases-root"
"""The experiment that exists once and names the run above the boards."""

GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow calls it when a run is not there, or deleted; the second is any wrong value too."""

_ROOT_TAG = "elth.root"


class Board:
    """Where the leases of a store are written."""

    def __init__(
        self, client: MlflowClient, make_experiment: Callable[[str], str], artifacts: str | None
    ) -> None:
        """Prepare; nothing is asked of the store yet.

        Args:
            client: of the store.
            make_experiment: gives the id of an experiment by name, and makes it if need be.
            artifacts: where files of its experiments lie, as of the others; there are none.
        """
        self._client = client
        self._make_experiment = make_experiment
        self._artifacts = artifacts
        self._root = ""
        self._boards: dict[str, str] = {}

    def latest(self, key: str) -> tuple[int, str]:
        """The number of a stage's last lease and the run that holds it; 0 if there was none."""
        leases = self._leases(key)
        number = max(leases, default=0)
        return number, leases.get(number, "")

    def holders(self, key: str) -> list[str]:
        """The runs that have held a stage's leases, first to last."""
        return [run_id for _, run_id in sorted(self._leases(key).items())]

    def take(self, key: str, number: int, run_id: str) -> bool:
        """Take a lease for a run; whether it is its own now."""
        return self._log_once(self._board(key), f"lease/{key}/{number}", run_id) == run_id

    def _leases(self, key: str) -> dict[int, str]:
        prefix = f"lease/{key}/"
        params = self._client.get_run(self._board(key)).data.params
        return {
            int(name.removeprefix(prefix)): run_id
            for name, run_id in params.items()
            if name.startswith(prefix)
        }

    def _board(self, key: str) -> str:
        part = key[:2]
        if part not in self._boards:
            root = self._find_root()
            run_id = self._client.get_run(root).data.params.get(f"board/{part}")
            if run_id is None:
                mine = self._create(f"leases of {part}...")
                run_id = self._log_once(root, f"board/{part}", mine)
                if run_id != mine:
                    self._client.delete_run(mine)
            self._boards[part] = run_id
        return self._boards[part]

    def _find_root(self) -> str:
        if not self._root:
            found = self._client.get_experiment_by_name(ROOT)
            if found is None:
                mine = self._create("leases")
                with contextlib.suppress(MlflowException):  # another process has made it
                    self._client.create_experiment(ROOT, self._artifacts, {_ROOT_TAG: mine})
                found = self._client.get_experiment_by_name(ROOT)
                if found is None or found.tags[_ROOT_TAG] != mine:
                    self._client.delete_run(mine)
                if found is None:
                    raise MlflowException(f"the experiment {ROOT} could not be made")
            self._root = found.tags[_ROOT_TAG]
        return self._root

    def _create(self, name: str) -> str:
        run = self._client.create_run(self._make_experiment(BOARDS), run_name=name)
        self._client.update_run(run.info.run_id, "FINISHED")  # else it would seem to run for ever
        return str(run.info.run_id)

    def _log_once(self, run_id: str, name: str, value: str) -> str:
        """Log a parameter that nobody has logged; the value that stands then."""
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
