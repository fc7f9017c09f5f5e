"""What an MLflow server bears: how soon it answers, and how many workers it serves.

A worker asks for little: some calls for each stage, and a batch of metrics now and then, at a pace
that gives way (``store.pace``). Together they are what a server has to answer, so its answers
a second, measured by batches as workers send them, tell how many workers it serves.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from orchestrator.store.away import plain
from orchestrator.store.opening import MARK, NOTE
from orchestrator.store.pace import BEATS, CALLS, SLOW, lease_seconds
from orchestrator.store.tracker import Tracker

PROBES = "elth-doctor"
"""The experiment of what is written to measure; its runs are marked as deleted at once."""

_NOTE = (
    "Written by `elth doctor` to measure how many batches of metrics this server takes. Nothing "
    "needs it, and it may be deleted."
)

_CLIENTS = 8
_SECONDS = 4.0
_ALONE = 8
_BUSY = 0.8
"""Of a core: where this process takes more, it is what limits."""
_SHARE = 0.7
"""Of its answers a second, for workers: what is beyond makes the others wait."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What was measured of a server."""

    alone: float
    """Seconds until an answer, the median of a client that is alone."""
    late: float
    """Seconds within which 19 of 20 answers came, to several clients at once."""
    rate: float
    """Answers a second to several clients at once."""
    errors: Counter[str] = field(default_factory=Counter)
    """What else it has said, and how often."""
    is_more: bool = False
    """Whether it could do more: the clients here had no more of a processor to ask with."""

    def workers(self, *, between: float, stage: float) -> int:
        """How many workers it serves.

        Args:
            between: seconds between two batches of a worker.
            stage: seconds of a stage.
        """
        signs = BEATS / lease_seconds()  # which go along with batches where these go as often
        return int(_SHARE * self.rate / (max(1 / between, signs) + CALLS / stage))

    @property
    def is_slow(self) -> bool:
        """Whether workers would take it for busy."""
        return self.late >= SLOW


def measure(tracker: Tracker, seconds: float = _SECONDS) -> Serving:
    """Write batches of metrics to a run that is deleted afterwards, alone and at once.

    Raises:
        MlflowException: the server does not take even one.
    """
    client = tracker.client
    run_id = client.create_run(_experiment(client), run_name="elth doctor").info.run_id
    try:
        alone = [_timed(client, run_id, number, 0) for number in range(_ALONE)]
        took: list[float] = []
        errors: Counter[str] = Counter()
        began, spent = time.monotonic(), time.process_time()

        def send(number: int) -> None:
            one, step = MlflowClient(tracker.store.uri), 0
            while time.monotonic() - began < seconds:
                step += 1
                try:
                    took.append(_timed(one, run_id, step, number))
                except MlflowException as error:
                    errors[plain(error)[:200]] += 1

        threads = [threading.Thread(target=send, args=(n + 1,)) for n in range(_CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall = time.monotonic() - began
        is_more = time.process_time() - spent > _BUSY * wall
    finally:
        with contextlib.suppress(MlflowException):
            client.set_terminated(run_id)
            client.delete_run(run_id)
    took.sort()
    return Serving(
        alone=statistics.median(alone),
        late=took[int(0.95 * len(took))] if took else seconds,
        rate=len(took) / wall,
        errors=errors,
        is_more=is_more,
    )


def _timed(client: MlflowClient, run_id: str, step: int, series: int) -> float:
    """Seconds until a batch of four metrics, as an epoch has, is answered."""
    now = int(time.time() * 1000)
    points = [Metric(f"series_{series}/{name}", 0.5, now, step) for name in "abcd"]
    began = time.monotonic()
    client.log_batch(run_id, metrics=points)
    return time.monotonic() - began


def _experiment(client: MlflowClient) -> str:
    """The experiment of probes; one that was deleted is taken back."""
    with contextlib.suppress(MlflowException):  # it is there, or another makes it just now
        return str(client.create_experiment(PROBES, tags={MARK: PROBES, NOTE: _NOTE}))
    found = client.get_experiment_by_name(PROBES)
    if found is None:
        raise MlflowException(f"the experiment {PROBES} could not be made")
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
        for run in client.search_runs([found.experiment_id]):  # which came back with it
            client.delete_run(run.info.run_id)
    return str(found.experiment_id)
