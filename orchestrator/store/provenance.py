"""Where a result comes from: the host, the versions, the commit."""

from __future__ import annotations

import contextlib
import functools
import getpass
import os
import platform
import socket
import subprocess
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

from elth import plugins


def of_modules(names: Iterable[str]) -> dict[str, str]:
    """What code from outside a result comes from: digests, and versions of installed packages."""
    found: dict[str, str] = {}
    for name in sorted(names):
        sources = plugins.sources(name)
        found[f"plugin.{name}"] = sources.digest
        for package in sources.packages:
            for distribution in _distributions().get(package, ()):
                with contextlib.suppress(PackageNotFoundError):
                    found[f"version.{distribution}"] = version(distribution)
    return found


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return packages_distributions()


USER = "ELTH_USER"
"""The variable that names who gave the command, where a process is another user's."""

SOURCE = {
    "mlflow.source.name": "elth run",
    "mlflow.source.type": "LOCAL",
}
"""What MLflow's pages show as the source of a run."""


def user() -> str:
    """Who this is done for: as the command's environment says, or the login name."""
    named = os.environ.get(USER) or os.environ.get("MLFLOW_TRACKING_USERNAME")
    with contextlib.suppress(OSError, KeyError, ImportError):  # in a container, of a bare number
        return named or getpass.getuser()
    return str(os.getuid())


_ENVIRONMENT: dict[str, str] = {}


def environment() -> dict[str, str]:
    """Versions, user, host and git commit, as tags of every run."""
    if not _ENVIRONMENT:
        for name in ("torch", "torchvision", "ray", "mlflow", "elth"):
            with contextlib.suppress(PackageNotFoundError):  # run from a checkout by PYTHONPATH
                _ENVIRONMENT[f"version.{name}"] = version(name)
        _ENVIRONMENT["version.python"] = platform.python_version()
        _ENVIRONMENT.update({"mlflow.user": user(), **SOURCE})
        _ENVIRONMENT["host"] = socket.gethostname()
        _ENVIRONMENT["machine"] = f"{platform.system()} {platform.machine()}"
        with contextlib.suppress(OSError, subprocess.CalledProcessError):  # no git, or no checkout
            _ENVIRONMENT["mlflow.source.git.commit"] = subprocess.run(
                ["git", "rev-parse", "HEAD"],
                cwd=Path(__file__).parent,
                capture_output=True,
                text=True,
                encoding="utf-8",
                check=True,
            ).stdout.strip()
    return _ENVIRONMENT
