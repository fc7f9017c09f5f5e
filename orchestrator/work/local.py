"""A Ray of our own: it listens on this machine's loopback address, and asks for a token.

Ray takes 127.0.0.1 for the address that leads out of the machine, where there is one, and then
listens on every address. It keeps to the loopback address on machines that are in no cluster, which
it takes those of Windows and macOS for, and any that is told so by a variable
(``get_node_ip_address`` in ``ray/_private/services.py``).
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import secrets
import shlex
import sys
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray._private import ray_constants

from elth.errors import ElthError

_INTERFACE = "lo0" if sys.platform == "darwin" else "lo"
_SENDING = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_TOKEN_ELSEWHERE = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def start(cpus: int, gpus: int | None = None) -> str:
    """Start it and connect to it.

    Args:
        cpus: cores that it gives away.
        gpus: GPUs that it gives away, as many as torch can use; None where no trial asks for one.

    Returns:
        what a person should know: that others can reach it; empty if they cannot.

    Raises:
        ElthError: its token cannot be written, or it gives away another number of GPUs.
    """
    keep_token()
    for name in ("ray", "ray.tune", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with _in_no_cluster(), _on_loopback():
        ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=gpus,  # by itself it asks NVML, which may know of others than torch
            include_dashboard=False,
            object_store_memory=128 * 2**20,  # results travel through the store, not through Ray
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=_interpreter(),
            _node_ip_address="127.0.0.1",
        )
    found = ray.cluster_resources().get("GPU", 0)
    if gpus is not None and found != gpus:
        ray.shutdown()
        raise ElthError(
            f"torch can use {gpus} GPUs of this machine and Ray has {found:g} to give, so that "
            "trials would wait for ever: see that CUDA_VISIBLE_DEVICES names GPUs that nvidia-smi "
            "lists, restart the machine if its driver was updated, or set resources.gpus=0"
        )
    messages_to_stderr()
    address = ray.util.get_node_ip_address()
    if is_loopback(address):
        return ""
    return (
        f"Ray {ray.__version__} listens on {address}, where other machines may reach it; its token "
        f"stands between. Ray 2.60 keeps to this machine"
    )


def _interpreter() -> dict[str, str]:
    """What has Ray start workers by this interpreter, wherever that lies; nothing in most places.

    A shell of Ray's reads its path as it is, so that no worker ever starts where it has a space
    (``exec_worker`` in ``ray/_private/runtime_env/context.py``).
    """
    quoted = shlex.quote(sys.executable)
    return {} if quoted == sys.executable else {"py_executable": quoted}


def messages_to_stderr() -> None:
    """Have Ray tell there, and so in the run's log, of nodes that died; it does by long dumps."""
    from ray._private import worker

    def write(message: Mapping[str, Any], **_: Any) -> None:
        print(*message.get("lines", ()), sep="\n", file=sys.stderr, flush=True)

    vars(worker)["print_to_stdstream"] = write


def is_loopback(address: str) -> bool:
    """Whether an address of a node reaches no other machine."""
    return ipaddress.ip_address(address).is_loopback


@contextlib.contextmanager
def _in_no_cluster() -> Iterator[None]:
    """Have Ray take this machine for one that is in no cluster, as does all that it starts."""
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    variable, value = os.environ.get(name), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[name] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False  # read from the variable when Ray was imported
    try:
        yield
    finally:  # a notebook may connect to a cluster next
        ray_constants.ENABLE_RAY_CLUSTER = value
        del os.environ[name]
        if variable is not None:
            os.environ[name] = variable


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Have workers of one job talk there, as they do so without a password, unless told otherwise.

    What Ray starts inherits it; a notebook may connect to a cluster next.
    """
    names = [name for name in _SENDING if name not in os.environ]
    os.environ.update(dict.fromkeys(names, _INTERFACE))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]


def keep_token() -> None:
    """Have Ray's token in a file that its owner alone can read; make one if there is none.

    Whoever has it can run commands as the user of a Ray. Ray itself writes it for all to read.

    Raises:
        ElthError: it cannot be written.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return
    if any(os.environ.get(name) for name in _TOKEN_ELSEWHERE):
        return
    file = Path.home() / ".ray/auth_token"
    try:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        if not file.exists():
            _write_once(file, secrets.token_hex(32))
        for path, mode in ((file.parent, 0o700), (file, 0o600)):
            known = path.stat()
            if known.st_uid == os.getuid() and known.st_mode & 0o077:
                path.chmod(mode)
    except OSError as error:
        raise ElthError(
            f"Ray's token cannot be written to {file}: {error.strerror or error}; set HOME to a "
            "folder that can be written, or RAY_AUTH_TOKEN to 64 random letters"
        ) from error


def _write_once(file: Path, text: str) -> None:
    """Write a file unless another process does so first, whose text then stays."""
    beside = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "w", encoding="utf-8") as made:
        made.write(text)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(beside, file)
    except OSError:  # a file system without links: of two that rename at once either may be last
        if not file.exists():
            beside.rename(file)
    finally:
        beside.unlink(missing_ok=True)
