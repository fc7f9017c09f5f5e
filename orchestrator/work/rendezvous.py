"""How workers of one job find each other: on the address of the first one's node.

PyTorch's store for it, as Ray Train starts it, listens on every address, asks for no password, and
takes a port that was found free and let go of again: another process may have it by then.
"""

from __future__ import annotations

import datetime
import errno
import os
import socket
import threading
from dataclasses import dataclass

import psutil
import ray
import torch
import torch.distributed as dist
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import _set_pg_timeout

from elth.errors import ElthError
from elth.parallel import Group

_START_SECONDS = 300.0
"""How long workers wait for each other at the start."""
_FIRST_SECONDS = 180.0
"""How long the first sum over GPUs may take, in which NCCL connects them."""

_stores: list[TCPStore] = []
"""The store of this process, which ends with it or with the next."""


@dataclass
class Rendezvous(TorchConfig):
    """Ray Train's setting for PyTorch; ``timeout_s`` holds once all workers are there."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """What sets workers up."""
        return _Backend


class _Backend(_TorchBackend):
    """As Ray Train's, but the port is held from when it is found."""

    def on_start(self, worker_group, backend_config):  # type: ignore[no-untyped-def]
        """Connect the workers."""
        address = worker_group.execute_single(0, ray.util.get_node_ip_address)
        count = len(worker_group)
        port = worker_group.execute_single(0, _listen, address, count)
        seconds, backend = backend_config.timeout_s, backend_config.backend
        joined = [
            worker_group.execute_single_async(
                rank, _join, address, port, rank, count, seconds, backend
            )
            for rank in range(count)
        ]
        ray.get(joined)


def _listen(address: str, count: int) -> int:
    """Open the store; returns its port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listening = socket.create_server((address, 0), family=family)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        listening = socket.create_server(("", 0), family=family)  # it is translated on the way here
    port = int(listening.getsockname()[1])
    _stores[:] = [
        TCPStore(
            address,
            port,
            count,
            is_master=True,
            timeout=datetime.timedelta(seconds=_START_SECONDS),
            wait_for_workers=False,
            master_listen_fd=listening.detach(),
        )
    ]
    return port


def _join(address: str, port: int, rank: int, count: int, seconds: float, backend: str) -> None:
    """Take part in the group of all workers.

    Raises:
        ElthError: not all have come; where to look.
    """
    start = datetime.timedelta(seconds=min(seconds, _START_SECONDS))
    if backend == "nccl" and "TORCH_NCCL_BLOCKING_WAIT" not in os.environ:  # as Ray Train does
        os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
    try:
        store = _stores[0] if rank == 0 else TCPStore(address, port, count, timeout=start)
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=start)
    except RuntimeError as error:  # PyTorch's
        raise ElthError(
            f"{_who(rank, count)} does not find the others at {address}:{port}: {_line(error)}; "
            "do firewalls leave all ports between the nodes open, and is GLOO_SOCKET_IFNAME, where "
            "it is set, the interface of the network between them?"
        ) from error
    _set_pg_timeout(datetime.timedelta(seconds=seconds))


def group_on(device: torch.device, seconds: float) -> Group:
    """This worker's group, of workers that reach each other.

    On GPUs NCCL adds up, and gives up where a sum takes too long; by Gloo they wait for the first
    one, which may have to do something alone.

    Args:
        device: where it computes.
        seconds: how long they wait for the first one.

    Raises:
        ElthError: on GPUs they do not reach each other; where to look.
    """
    rank, count = dist.get_rank(), dist.get_world_size()
    if device.type != "cuda":
        return Group(rank, count, device)
    own = ray.util.get_node_ip_address()
    names = [name for name, address in _interfaces() if address == own]
    if names:  # Gloo itself goes by the host's name, which may be that of the loopback address
        os.environ.setdefault("GLOO_SOCKET_IFNAME", names[0])
    try:
        waiting = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=_START_SECONDS))
    except RuntimeError as error:
        raise ElthError(
            f"{_who(rank, count)} is not reached by Gloo: {_line(error)}; give the interface of "
            "the network between the nodes by GLOO_SOCKET_IFNAME"
        ) from error
    _set_pg_timeout(datetime.timedelta(seconds=seconds), waiting)
    first_sum(device)
    return Group(rank, count, device, waiting)


def first_sum(device: torch.device) -> None:
    """Add up something over all workers, which connects them.

    Raises:
        ElthError: it fails or does not come through; where to look.
    """
    rank, count = dist.get_rank(), dist.get_world_size()
    failures: list[Exception] = []

    def add_up() -> None:
        try:
            if device.type == "cuda":
                torch.cuda.set_device(device)
            one = torch.ones(1, device=device)
            dist.all_reduce(one)
            one.item()  # waits for it
        except Exception as error:
            failures.append(error)

    # In a thread, as what hangs in NCCL cannot be interrupted; it ends with the process.
    adding = threading.Thread(target=add_up, daemon=True, name="elth-first-sum")
    adding.start()
    adding.join(_FIRST_SECONDS)
    if not adding.is_alive() and not failures:
        return
    reason = f"nothing within {_FIRST_SECONDS:g} s" if not failures else _line(failures[0])
    chosen = os.environ.get("NCCL_SOCKET_IFNAME", "not set, so that NCCL chooses")
    raise ElthError(
        f"{_who(rank, count)} does not add up with the others: {reason}; give the interface of the "
        f"network between the nodes by NCCL_SOCKET_IFNAME ({chosen}), and see with NCCL_DEBUG=INFO "
        "what NCCL tries"
    ) from (failures[0] if failures else None)


def _who(rank: int, count: int) -> str:
    """Which worker this is, and where."""
    found = ", ".join(f"{name} {address}" for name, address in _interfaces())
    return f"worker {rank} of {count} on {socket.gethostname()} ({found or 'no address'})"


def _interfaces() -> list[tuple[str, str]]:
    """Names and IP addresses of the interfaces by which this machine may be reached."""
    families = (socket.AF_INET, socket.AF_INET6)
    return [
        (name, one.address.partition("%")[0])
        for name, addresses in psutil.net_if_addrs().items()
        for one in addresses
        if one.family in families and not one.address.startswith(("127.", "::1", "fe80"))
    ]


def _line(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
