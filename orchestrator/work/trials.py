"""Trials of Tune, each of which does one job: by itself, or by workers that it launches.

The process that starts trials imports this and needs no torch, which would cost it seconds and half
a gigabyte: what computes is imported where it is done.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import astuple
from typing import Any, cast

import ray
from ray import tune
from ray.util.queue import Empty, Queue

from orchestrator.work.deaths import Deaths
from orchestrator.work.job import JobSettings
from orchestrator.work.passing import Passed
from orchestrator.work.telling import SIGN_SECONDS, Report

REPORT_SECONDS = 1.0
"""Between two results of a trial, where the driver keeps up."""
_LONGEST_SECONDS = 30.0
"""Between two results where it does not."""
_SHARE = 20
"""A trial goes on for at least so many times the time that it stood still for the driver."""
_EASED = 0.8
"""Of the time between two results that is left after one for which the driver was quick."""


class _Trial(tune.Trainable):
    """What both kinds have in common: how a job comes to them."""

    def setup(
        self,
        config: dict[str, Any],
        common: JobSettings | None = None,
        environment: Passed | None = None,
    ) -> None:
        """Begin a job, of which ``config`` tells what is its own and ``common`` the rest."""
        self._common: JobSettings = common or {}
        self._environment = environment or Passed()
        if environment is not None:
            environment.apply()
        self.begin(self._with(config))
        self.config = {}  # it would come back with each result

    def _with(self, config: dict[str, Any]) -> JobSettings:
        """The settings of a job: its own, and what all have in common."""
        return cast("JobSettings", {**self._common, **config})

    def begin(self, config: JobSettings) -> None:
        """Begin a job."""
        raise NotImplementedError


class JobTrial(_Trial):
    """A job that is done in this process, which stays for the next one."""

    _pause = REPORT_SECONDS
    _told: float | None = None

    def begin(self, config: JobSettings) -> None:
        """Begin a job; its first stage begins with ``step``."""
        from orchestrator.work import worker

        self._job = worker.run_job(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another job in the same process."""
        self.begin(self._with(new_config))
        self._told = None
        self.config = {}
        return True

    def step(self) -> dict[str, Any]:
        """Go on for about a second, or to the end of a stage.

        After each result a trial stands still until the driver has taken it. With hundreds of
        trials that is long, and then they tell more seldom how far they are.
        """
        began = time.monotonic()
        stood = began - self._told if self._told is not None else 0.0
        self._pause = pause_after(stood, self._pause)
        done = True
        report: Report | None = None
        for report in self._job:
            if report.is_last or report.fraction == 0 or time.monotonic() - began > self._pause:
                done = report.is_last
                break
        self._told = time.monotonic()
        # A tuple, as Tune flattens the mappings in a result.
        return {"report": astuple(report) if report else None, "done": done}


def pause_after(stood: float, before: float) -> float:
    """Seconds until a trial tells again how far it is.

    Growing at once and coming back slowly, the pauses of hundreds of trials settle where a driver
    that cannot take a result of each a second costs them a twentieth of their time.

    Args:
        stood: seconds for which the trial stood still after its last result.
        before: the pause before that.
    """
    return min(max(REPORT_SECONDS, _SHARE * stood, _EASED * before), _LONGEST_SECONDS)


class GroupTrial(_Trial):
    """A job that is done by several workers, which this process launches."""

    def begin(self, config: JobSettings) -> None:
        """Launch the workers."""
        self._reports = Queue(actor_options={"num_cpus": 0})
        self._error: Exception | None = None
        self._deaths = Deaths()
        self._last = Report(index=0)
        self._sign = time.monotonic()
        self._thread = threading.Thread(target=self._run, args=(config,), daemon=True)
        self._thread.start()

    def _run(self, config: JobSettings) -> None:
        try:
            from orchestrator.work import distributed

            distributed.fit(config, self._reports, self._environment)
        except Exception as error:
            self._error = error

    def step(self) -> dict[str, Any]:
        """Tell what the group has reported within about a second."""
        report, over = self._next()
        if over and self._error is not None and not self._last.failed:
            death = self._deaths.look(self._error)
            log = (death.log, *death.lines) if death.log else tuple(death.told.splitlines())
            report = Report(
                index=self._last.index,
                failed=death.reason,
                log=log,
                died=True,
            )
        if report is not None:
            self._last = report
        done = over or (report is not None and (bool(report.failed) or report.stopped))
        silent = time.monotonic() - self._sign
        return {
            "report": astuple(report) if report else None,
            "waits": silent if silent > 3 * SIGN_SECONDS else 0.0,
            "done": done,
        }

    def _next(self) -> tuple[Report | None, bool]:
        """The latest report that matters by itself, and whether nothing follows."""
        began, latest = time.monotonic(), None
        while time.monotonic() - began < REPORT_SECONDS:
            over = not self._thread.is_alive()
            try:
                item = self._reports.get(block=not over, timeout=0.2)
            except Empty:
                if over:
                    return latest, True
                continue
            self._sign = time.monotonic()
            if not item:
                continue
            latest = Report(*item)
            if latest.failed or latest.stopped or latest.note or latest.fraction == 0:
                break
        return latest, False

    def cleanup(self) -> None:
        """Wait for the group's end, if it comes by itself."""
        if not self._last.stopped:
            self._thread.join(timeout=30)
        with contextlib.suppress(ray.exceptions.RayError):
            self._reports.shutdown()
