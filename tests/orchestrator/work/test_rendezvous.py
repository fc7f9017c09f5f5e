"""How workers of one job find each other, without Ray and without GPUs."""

from __future__ import annotations

import errno
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

import pytest
import ray
import torch
import torch.distributed as dist

from elth.errors import ElthError
from orchestrator.work import rendezvous
from orchestrator.work.rendezvous import Rendezvous, first_sum, group_on
from tests.orchestrator.work import meeting_calls as calls


class Workers:
    """As Ray Train's group of two workers: a process for each."""

    def __init__(self) -> None:
        method = multiprocessing.get_context("spawn")
        self._pools = [ProcessPoolExecutor(1, mp_context=method) for _ in range(2)]

    def __len__(self) -> int:
        return len(self._pools)

    def execute_single_async(self, rank: int, call: Callable[..., Any], *given: Any) -> Future[Any]:
        return self._pools[rank].submit(call, *given)

    def execute_single(self, rank: int, call: Callable[..., Any], *given: Any) -> Any:
        if call is ray.util.get_node_ip_address:
            return "127.0.0.1"
        return self.execute_single_async(rank, call, *given).result()

    def each(self, call: Callable[..., Any], *given: Any) -> list[Any]:
        """What each of them gives, which is told its rank first."""
        asked = [self._pools[rank].submit(call, rank, *given) for rank in range(len(self))]
        return [one.result() for one in asked]

    def meet(self, start: float, seconds: float) -> None:
        """Have them find each other as for a new job."""
        self.each(calls.begin, start)
        setting: Any = Rendezvous(backend="gloo", timeout_s=seconds)  # type: ignore[arg-type]
        setting.backend_cls().on_start(self, setting)

    def end(self) -> None:
        for pool in self._pools:
            pool.shutdown()


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """Two processes that talk on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
        patch.setenv("OMP_NUM_THREADS", "1")
        made = Workers()
        made.each(calls.begin, 1.0)
    yield made
    made.end()


@pytest.fixture(autouse=True)
def futures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Futures where Ray has references."""
    monkeypatch.setattr(ray, "get", lambda asked: [one.result() for one in asked])


def test_workers_that_have_met_wait_longer_than_for_meeting(workers: Workers) -> None:
    workers.meet(start=4, seconds=60)
    assert workers.each(calls.late, 6.0) == [3.0, 3.0]


def test_on_gpus_a_sum_is_given_up_soon_and_the_first_worker_waited_for(workers: Workers) -> None:
    workers.meet(start=20, seconds=1)
    told = workers.each(calls.patient, 2.5)
    for shared, gathered, waited, _ in told:
        assert (shared, gathered) == ({"of": 0}, [b"\0", b"\1"])
        assert waited > 2, "longer than a sum may take"
    assert "Timed out waiting" in told[0][3]


def test_a_worker_that_does_not_come_is_told_with_where_to_look(workers: Workers) -> None:
    workers.each(calls.begin, 1.0)
    port = workers.execute_single(0, rendezvous._listen, "127.0.0.1", 2)
    began = time.monotonic()
    with pytest.raises(ElthError) as caught:
        workers.execute_single(0, rendezvous._join, "127.0.0.1", port, 0, 2, 3600.0, "gloo")
    assert time.monotonic() - began < 60
    assert str(caught.value).startswith("worker 0 of 2 on ")
    assert f"does not find the others at 127.0.0.1:{port}: " in str(caught.value)
    assert "GLOO_SOCKET_IFNAME" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_port_is_held_from_when_it_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "_stores", [])
    port = rendezvous._listen("127.0.0.1", 2)
    with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
        socket.create_server(("127.0.0.1", port))
    (store,) = rendezvous._stores
    store.set("a", "b")
    assert store.get("a") == b"b"


def test_a_node_that_is_known_by_anothers_address_listens_on_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As behind a translation of addresses; the store itself is not made here."""
    made: list[tuple[Any, ...]] = []
    monkeypatch.setattr(rendezvous, "TCPStore", lambda *given, **_: made.append(given))
    monkeypatch.setattr(rendezvous, "_stores", [])
    port = rendezvous._listen("192.0.2.77", 2)
    assert made == [("192.0.2.77", port, 2)]


def _first_sum(monkeypatch: pytest.MonkeyPatch, all_reduce: Callable[..., None]) -> str:
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "get_world_size", lambda: 8)
    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    monkeypatch.setattr(rendezvous, "_FIRST_SECONDS", 0.2)
    monkeypatch.setattr(rendezvous, "_interfaces", lambda: [("eth0", "10.0.0.7")])
    monkeypatch.setattr(socket, "gethostname", lambda: "n7")
    with pytest.raises(ElthError) as caught:
        first_sum(torch.device("cpu"))
    return str(caught.value)


def test_a_first_sum_that_fails_says_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: torch.Tensor) -> None:
        raise RuntimeError("NCCL error\nLast error: Duplicate GPU detected")

    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth9")
    assert _first_sum(monkeypatch, refuse) == (
        "worker 1 of 8 on n7 (eth0 10.0.0.7) does not add up with the others: NCCL error Last "
        "error: Duplicate GPU detected; give the interface of the network between the nodes by "
        "NCCL_SOCKET_IFNAME (eth9), and see with NCCL_DEBUG=INFO what NCCL tries"
    )


def test_a_first_sum_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    told = _first_sum(monkeypatch, lambda _: time.sleep(2))
    assert "does not add up with the others: nothing within 0.2 s; give" in told
    assert "by NCCL_SOCKET_IFNAME (not set, so that NCCL chooses)" in told


def test_workers_on_processors_have_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    found = group_on(torch.device("cpu"), 60)
    assert (found.rank, found.workers, found.waiting) == (1, 2, None)
    found.meet()


def test_gloo_takes_the_interface_of_the_nodes_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.7")
    known = [("docker0", "172.17.0.1"), ("ib0", "10.0.0.7")]
    monkeypatch.setattr(rendezvous, "_interfaces", lambda: known)

    def refuse(**_: object) -> None:
        raise RuntimeError("no way")

    monkeypatch.setattr(dist, "new_group", refuse)
    with pytest.raises(
        ElthError, match=r"worker 0 of 2 on .* is not reached by Gloo: no way; give"
    ):
        group_on(torch.device("cuda"), 60)
    assert os.environ["GLOO_SOCKET_IFNAME"] == "ib0"
