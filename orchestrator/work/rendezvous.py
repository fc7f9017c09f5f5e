"""How workers of one job find each other: on the loopback address, where that is their node's.

PyTorch's store for it, as Ray Train starts it, listens on every address and asks for no password.
"""

from __future__ import annotations

import datetime
import socket
from dataclasses import dataclass

import ray
import torch.distributed as dist
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from orchestrator.work.local import is_loopback

_stores: list[TCPStore] = []
"""The store of this process, which ends with it or with the next."""


@dataclass
class Rendezvous(TorchConfig):
    """Ray Train's setting for PyTorch."""

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        """What sets workers up."""
        return _Backend


class _Backend(_TorchBackend):
    """As Ray Train's, but for a node that has the loopback address."""

    def on_start(self, worker_group, backend_config):  # type: ignore[no-untyped-def]
        """Connect the workers."""
        address = worker_group.execute_single(0, ray.util.get_node_ip_address)
        if not is_loopback(address):
            return super().on_start(worker_group, backend_config)
        count = len(worker_group)
        seconds = backend_config.timeout_s
        port = worker_group.execute_single(0, _listen, address, count, seconds)
        joined = [
            worker_group.execute_single_async(
                rank, _join, address, port, rank, count, seconds, backend_config.backend
            )
            for rank in range(count)
        ]
        ray.get(joined)
        return None


def _listen(address: str, count: int, seconds: float) -> int:
    """Open the store; returns its port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.create_server((address, 0), family=family)
    port = int(listening.getsockname()[1])
    _stores[:] = [
        TCPStore(
            address,
            port,
            count,
            is_master=True,
            timeout=datetime.timedelta(seconds=seconds),
            wait_for_workers=False,
            master_listen_fd=listening.detach(),
        )
    ]
    return port


def _join(address: str, port: int, rank: int, count: int, seconds: float, backend: str) -> None:
    timeout = datetime.timedelta(seconds=seconds)
    store = _stores[0] if rank == 0 else TCPStore(address, port, count, timeout=timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=timeout)
