"""What Tune asks while it runs trials: which job is next, what to keep, and whether to end."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from orchestrator.plan.schedule import Schedule
from orchestrator.work import stopping
from orchestrator.work.deaths import Death, Deaths
from orchestrator.work.reasons import Reasons
from orchestrator.work.sharing import Turns
from orchestrator.work.telling import Report


class PlanSearch(Searcher):
    """Tune's search algorithm: suggests the schedule's next job and tells it what became of it."""

    def __init__(
        self,
        schedule: Schedule,
        stop: stopping.Stop | None = None,
        reasons: Reasons | None = None,
    ) -> None:
        super().__init__()
        self.schedule = schedule
        self._stop = stop or stopping.Stop("")
        self._reasons = reasons
        self._waits: dict[str, float] = {}
        self._died: set[str] = set()

    @property
    def waits(self) -> float:
        """For how many seconds a job of several workers has not had them."""
        return max(self._waits.values(), default=0.0)

    def suggest(self, trial_id: str) -> Any:
        """The next job as a trial's configuration; None while none is ready."""
        if self._stop.asked or self._stop.pauses:
            return Searcher.FINISHED  # for None Tune would wait, minutes if no trial is left
        job = self.schedule.take(trial_id)
        if job is not None:
            stages = [stage.describe() for stage in job.stages]
            watched = self.schedule.watched(trial_id)
            # Tune keeps several copies of it, so what all jobs have in common goes another way.
            return {"stages": stages, "watched": watched, "stop": self._stop.name}
        return Searcher.FINISHED if self.schedule.is_over else None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass a trial's report on; finished stages unlock others at once."""
        self._waits[trial_id] = result.get("waits", 0.0)
        report = result.get("report")
        if report is None:
            return
        report = Report(*report)
        self.schedule.advance(
            trial_id, report.index, report.fraction, report.accuracy, report.ended_at
        )
        if report.note:
            self.schedule.note(report.note)
        if report.again:
            self.schedule.again(report.again)
        if report.last:
            self.schedule.end_chain(report.last, report.because)
        if report.held:
            self.schedule.hold(trial_id, report.held)
        elif report.redo:
            self.schedule.redo(trial_id, report.redo, report.failed)
        elif report.stopped:
            self.schedule.give_back(trial_id)
        elif report.died:
            self._died.add(trial_id)
            self.died(trial_id, Death(report.failed, report.log))
        elif report.failed:
            why = self._with_log(report.failed) if report.log else report.failed
            stage = self.schedule.fail(trial_id, why)
            if stage is not None and report.log and self._reasons is not None:
                self._reasons.add(stage, why, report.log)  # nobody else is left who could

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Note that a trial is over; of one with an error Tune says next what that was."""
        if result is not None:
            self.on_trial_result(trial_id, result)
        self._waits.pop(trial_id, None)
        if self._stop.asked or self._stop.pauses:  # what is left of it is no failure
            return
        if error:
            self._died.add(trial_id)
        else:
            self.schedule.end(trial_id)

    def died(self, trial_id: str, death: Death) -> None:
        """Note why the process of a trial has died."""
        if trial_id not in self._died:
            return
        self._died.remove(trial_id)
        title = self.schedule.title(trial_id)
        failed = self.schedule.end(trial_id, self._with_log(death.reason))
        if self._reasons is not None:
            self._reasons.told(title, death)
            if failed is not None:
                self._reasons.add(*failed, death.lines or death.told.splitlines())

    def _with_log(self, reason: str) -> str:
        return reason if self._reasons is None else f"{reason}; see {self._reasons.log}"

    def unexplained(self) -> None:
        """Note the trials that have ended with an error of which nothing was said."""
        for trial_id in list(self._died):
            self.died(trial_id, Death("its process died"))

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune keeps a copy of its parts on disk, and this one has its life here."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing is saved: the store holds all that counts."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is restored; see ``save``."""


class AsAsked(FIFOScheduler):
    """Leaves it to Tune to begin trials as they were suggested, which it does by itself."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """No other one: looking for it goes through all trials there ever were, at each event."""


class Forget(tune.Callback):
    """Lets go of what Tune keeps of each trial for statistics and for a state never restored."""

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Empty a trial that is over; of thousands this would be hundreds of megabytes."""
        trial.config = {}
        trial.evaluated_params = {}
        trial.run_metadata.last_result.pop("config", None)
        trial.run_metadata.metric_analysis.clear()
        trial.run_metadata.metric_n_steps.clear()
        trial.invalidate_json_state()


class Beginning(tune.Callback):
    """Tells the schedule when there is room for a trial, which it may have waited for for long."""

    def __init__(self, search: PlanSearch) -> None:
        self._search = search

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Let its first stage begin now."""
        self._search.schedule.begin(trial.trial_id)


class Dying(tune.Callback):
    """Finds out why the process of a trial has died."""

    def __init__(self, search: PlanSearch, deaths: Deaths) -> None:
        self._search = search
        self._deaths = deaths

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Pass over what nothing was said of."""
        self._search.unexplained()

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Look into it."""
        self._search.died(trial.trial_id, self._deaths.look(_error(trial)))


def _error(trial: Trial) -> Exception | None:
    """The error that Tune has just written down of a trial, before it is copied anywhere.

    It is a pickle in the folder of this run's Ray, which Tune reads in the same way at the end.
    """
    with contextlib.suppress(Exception):  # of unpickling: anything
        error: Exception = cloudpickle.loads(Path(str(trial.pickled_error_file)).read_bytes())
        return error
    with contextlib.suppress(OSError):
        text = Path(str(trial.error_file)).read_text(encoding="utf-8", errors="replace")
        return RuntimeError(text)
    return None


_MAKES_ROOM = (
    "another driver's job of several workers waits for room on this cluster: trials write "
    "checkpoints, make room, and go on after it"
)


class Stopping(tune.Callback):
    """Has the trials end before Tune does, once the run is to end or to make room for others."""

    def __init__(self, stop: stopping.Stop, search: PlanSearch, turns: Turns | None) -> None:
        self._stop = stop
        self._search = search
        self._turns = turns

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look, ten times a second."""
        tunes = signal.getsignal(signal.SIGUSR1)
        if callable(tunes):
            self._stop.listen(tunes)
        if self._turns is not None and self._turns.look(self._search.waits):
            self._search.schedule.note(_MAKES_ROOM)
            self._stop.pause()
        if self._stop.asked or self._stop.pauses:  # of thousands of trials all are looked at
            self._stop.look(busy=any(trial.status == Trial.RUNNING for trial in trials))
