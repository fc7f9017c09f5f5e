"""Runs on a cluster that is elsewhere: handed in, followed and stopped by Ray's job client.

A job is ``elth run CONFIG --address auto`` on the cluster's head. Ray shows its command, its
variables and its log to whoever may see the dashboard, so none of them holds a credential: what
must stay hidden goes into the head's memory by a name of its own, from which the job takes it as
it begins (``cluster.connected``).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shlex
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elth.errors import ElthError
from orchestrator.cluster.machines import HANDED
from orchestrator.cluster.package import pack
from orchestrator.store import provenance
from orchestrator.store.opening import check_proxy
from orchestrator.work.passing import Passed, open_settings
from orchestrator.work.stopping import GRACE_SECONDS

OVER = ("SUCCEEDED", "FAILED", "STOPPED")
_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_AGAIN_SECONDS = 2.0
_PATIENCE = 30


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as the cluster knows it."""

    id: str
    state: str
    """``PENDING``, ``RUNNING``, or one of ``OVER``."""
    began: float | None
    """Seconds since 1970."""
    ended: float | None
    code: int | None
    """What its command returned."""
    message: str

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.state in OVER


class Jobs:
    """The job server of a cluster, at the address of its dashboard."""

    def __init__(self, address: str | None) -> None:
        """Connect.

        Raises:
            ElthError: it does not answer, asks for a token that is not to be had, or is this
                machine's and would be asked of a proxy.
        """
        address = address or next((os.environ[n] for n in _ADDRESSES if os.environ.get(n)), None)
        if address is None:
            raise ElthError("no cluster is named: give --address http://HEAD:8265, or RAY_ADDRESS")
        if "://" not in address:
            raise ElthError(
                f"'{address}' is no address of a dashboard: write it as http://HEAD:8265"
            )
        self.address = address.rstrip("/")
        check_proxy(self.address)
        self._client = self._connect()

    def _connect(self) -> Any:
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        for name in ("dashboard.modules.job.sdk", "dashboard.modules.dashboard_sdk", "_private"):
            logging.getLogger(f"ray.{name}").setLevel(logging.ERROR)
        headers = json.loads(os.environ.get("RAY_JOB_HEADERS") or "{}")
        verify: Any = os.environ.get("REQUESTS_CA_BUNDLE") or True
        with _without(_ADDRESSES):  # they would go before what was given
            try:
                return JobSubmissionClient(self.address, headers=headers, verify=verify)
            except AuthenticationError:
                if not _use_token():
                    raise ElthError(
                        f"the cluster {self.address} asks for a token: give that of the cluster by "
                        "RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
                    ) from None
            except Exception as error:
                raise self._away(error) from error
            try:
                return JobSubmissionClient(self.address, headers=headers, verify=verify)
            except AuthenticationError as error:
                raise ElthError(
                    f"the cluster {self.address} does not take the token of this machine: is it "
                    "that of the cluster (RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token)?"
                ) from error
            except Exception as error:
                raise self._away(error) from error

    def _away(self, error: Exception) -> ElthError:
        first = (str(error) or type(error).__name__).splitlines()[0]
        return ElthError(
            f"cannot reach the cluster's job server {self.address}: {first} Is the head running "
            "with ray[default], and is the port (8265) open or forwarded?"
        )

    def submit(
        self,
        name: str,
        words: Iterable[str],
        project: Path,
        hidden: Passed,
        *,
        python: str = "python",
        leave_out: Iterable[Path] = (),
    ) -> str:
        """Send the project and start ``elth`` with some words; returns the job's id.

        Args:
            name: what the id begins with.
            words: the command line after ``elth``.
            project: the directory that is sent and in which the command runs.
            hidden: variables for the job and its workers.
            python: the interpreter on the cluster.
            leave_out: files and folders that are not sent.

        Raises:
            ElthError: the project is too large, or the cluster does not take the job.
        """
        job = f"{name}-{uuid.uuid4().hex[:8]}"
        command = shlex.join(["exec", python, "-m", "orchestrator.cli", *words])
        shown = {**open_settings(), provenance.USER: provenance.user()}
        shown |= {"RAY_JOB_STOP_WAIT_TIME_S": str(int(GRACE_SECONDS) + 75), "COLUMNS": "120"}
        with tempfile.TemporaryDirectory(prefix="elth-") as folder:
            archive = Path(folder) / "project.zip"
            pack(project, archive, leave_out)
            try:
                if hidden.values:
                    shown[HANDED] = self._hand_over(hidden.values)
                return str(
                    self._client.submit_job(
                        entrypoint=command,
                        submission_id=job,
                        runtime_env={"working_dir": str(archive), "env_vars": shown},
                        metadata={"elth": name},
                    )
                )
            except Exception as error:
                first = (str(error) or type(error).__name__).splitlines()[0]
                raise ElthError(
                    f"the cluster {self.address} did not take the job: {first}"
                ) from error

    def _hand_over(self, values: Mapping[str, str]) -> str:
        """Put values into the head's memory, for ten minutes; returns their name there."""
        package = f"elth-{uuid.uuid4().hex}.zip"
        place = f"/api/packages/gcs/{package}"
        for method, data in (("PUT", json.dumps(dict(values)).encode()), ("GET", None)):
            answer = self._client._do_request(method, place, data=data)
            if answer.status_code != 200:
                raise ElthError(f"it keeps no package ({answer.status_code})")
        return f"gcs://{package}"

    def get(self, job: str) -> Job:
        """A job.

        Raises:
            ElthError: there is none of this id.
        """
        try:
            return _job(self._client.get_job_info(job))
        except RuntimeError as error:
            if "404" in str(error) or "does not exist" in str(error):
                known = ", ".join(one.id for one in self.all()[:5]) or "none"
                raise ElthError(
                    f"the cluster {self.address} has no job '{job}' (the last: {known})"
                ) from error
            raise self._away(error) from error
        except OSError as error:
            raise self._away(error) from error

    def all(self) -> list[Job]:
        """All jobs that were handed in, the latest first."""
        try:
            found = [_job(one) for one in self._client.list_jobs() if one.submission_id]
        except (OSError, RuntimeError) as error:
            raise self._away(error) from error
        return sorted(found, key=lambda one: -(one.began or 0.0))

    def log(self, job: str) -> str:
        """What a job has written so far."""
        self.get(job)
        try:
            return str(self._client.get_job_logs(job))
        except (OSError, RuntimeError) as error:
            raise self._away(error) from error

    def follow(self, job: str, write: Callable[[str], object]) -> Job:
        """Pass on what a job writes until it has ended, whatever becomes of the connection.

        Raises:
            ElthError: the cluster has been away for a minute.
        """
        told, failures = [0], 0
        while True:
            try:
                asyncio.run(self._tail(job, told, write))
                failures = 0
            except (OSError, RuntimeError):
                failures += 1
            except Exception as error:  # aiohttp's
                if not type(error).__module__.startswith("aiohttp"):
                    raise
                failures += 1
            try:
                found = self.get(job)
                if found.is_over:
                    self._rest(job, told[0], write)
                    return found
            except ElthError:
                failures += 1
                if failures > _PATIENCE:
                    raise
            time.sleep(_AGAIN_SECONDS)

    async def _tail(self, job: str, told: list[int], write: Callable[[str], object]) -> None:
        """Pass on the log from its beginning, but for what was ``told`` already."""
        seen = 0
        async for text in self._client.tail_job_logs(job):
            fresh = text[max(told[0] - seen, 0) :]
            seen += len(text)
            if fresh:
                write(fresh)
                told[0] = seen

    def _rest(self, job: str, told: int, write: Callable[[str], object]) -> None:
        with contextlib.suppress(ElthError):
            rest = self.log(job)[told:]
            if rest:
                write(rest)

    def stop(self, job: str) -> bool:
        """Ask a job to end; returns whether it was running."""
        self.get(job)
        try:
            return bool(self._client.stop_job(job))
        except (OSError, RuntimeError) as error:
            raise self._away(error) from error

    def wait(self, job: str, seconds: float) -> Job:
        """Wait until a job has ended, for so long at most."""
        end = time.monotonic() + seconds
        while True:
            found = self.get(job)
            if found.is_over or time.monotonic() > end:
                return found
            time.sleep(0.5)


def _job(details: Any) -> Job:
    state = getattr(details.status, "value", details.status)
    return Job(
        id=str(details.submission_id),
        state=str(state),
        began=details.start_time / 1000 if details.start_time else None,
        ended=details.end_time / 1000 if details.end_time else None,
        code=details.driver_exit_code,
        message=details.message or "",
    )


def _use_token() -> bool:
    """Have Ray send the token of this machine, if there is one."""
    from ray._private.authentication import authentication_token_setup as setup

    return bool(setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False))


@contextlib.contextmanager
def _without(names: Iterable[str]) -> Any:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
