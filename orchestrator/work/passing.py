"""What of the environment goes along with the work: settings and credentials of the stores.

Processes that Ray starts on other machines know nothing of the shell in which a command was given.
Credentials among these values never become part of Ray's description of a job, a command line, a
log or a tracked value: workers get them as an argument, through Ray's object store. Settings of the
libraries that send between GPUs and nodes are no secret, and have to be there when a process starts
(``open_settings``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from elth.files import cache_folder
from orchestrator.store.address import without_credentials
from orchestrator.store.provenance import USER as USER_NAME

_PREFIXES = ("MLFLOW_", "AWS_", "AZURE_", "GOOGLE_", "GCS_")
_ALWAYS = ("ELTH_ARITHMETIC", "ELTH_LEASE_SECONDS", "ELTH_PATIENCE_SECONDS", USER_NAME)

_OPEN_PREFIXES = ("NCCL_", "TORCH_NCCL_", "GLOO_", "UCX_")
_OPEN = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")

_MORE = "ELTH_ENV"
"""Holds further names, divided by commas."""

USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"


@dataclass(frozen=True)
class Passed:
    """Variables for other processes; shows their names and never their values."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return f"variables {', '.join(sorted(self.values)) or 'none'}"

    def apply(self) -> None:
        """Set them in this process, and what this machine has of its own for compiled networks."""
        os.environ.update(self.values)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(compiled_cache()))


def passed(more: tuple[str, ...] = ()) -> Passed:
    """What goes along of this process's environment, with variables that are named.

    Not what it has set itself for MLflow's client, as each process does.
    """
    from orchestrator.store import away  # it imports MLflow, which what starts trials need not

    more += tuple(name for name in os.environ.get(_MORE, "").split(",") if name)
    found = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_PREFIXES) or name in (*_ALWAYS, *more)
    }
    for name in away.OURS:
        if found.get(name) == away.CLIENT[name]:
            del found[name]
    if more:
        found[_MORE] = ",".join(dict.fromkeys(more))
    return Passed(found)


def to_workers() -> Passed:
    """What goes along to processes that train, which wait longer for an answer of a server.

    Unless somebody has said how long a request may take.
    """
    from orchestrator.store import away

    found = passed().values
    return Passed({away.TIMEOUT: str(away.worker_timeout()), **found})


def open_settings() -> dict[str, str]:
    """What of this process's environment Ray may show: how workers send, and allocate on a GPU."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_OPEN_PREFIXES) or name in _OPEN
    }


def compiled_cache() -> Path:
    """Where compiled networks are kept on this machine, from run to run."""
    return cache_folder("inductor")


def take_credentials(address: str) -> str:
    """Move the user and the password of a server's address into the environment.

    MLflow reads them there, and the address can be shown and handed on. That of a database stays
    as it is.
    """
    if not address.startswith(("http://", "https://")):
        return address
    parts = urlsplit(address)
    if parts.username:
        os.environ[USER] = unquote(parts.username)
        os.environ[PASSWORD] = unquote(parts.password or "")
    return without_credentials(address)
