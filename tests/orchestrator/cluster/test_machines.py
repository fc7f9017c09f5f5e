"""A cluster that is there already: what fits on it, and what its nodes must see."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from elth.errors import ElthError
from orchestrator.cluster import machines
from orchestrator.cluster.machines import Cluster, Node, address_of, check_places, look, slots
from orchestrator.plan.outside import Outside
from orchestrator.store.address import Store
from tests.orchestrator.helpers import tiny


def node(number: int, cpus: int = 8, gpus: int = 0) -> Node:
    """A machine."""
    return Node(id=f"{number:040x}", name=f"n{number}", cpus=cpus, gpus=gpus)


VIT = Path(__file__).parents[2] / "plugins" / "vit.py"
TWO = (node(1), node(2))


@pytest.mark.parametrize(
    ("resources", "machines", "count"),
    [
        ({}, [(4, 0), (2, 0)], 6),
        ({"cpus": 3}, [(4, 0), (4, 0), (2, 0)], 2),  # none lies across two
        ({"cpus": 2, "gpus": 0.5}, [(8, 1), (2, 4), (8, 0)], 3),
        ({"gpus": 1}, [(8, 2), (1, 2)], 3),
        ({"concurrent": 5}, [(4, 0), (4, 0)], 5),
    ],
)
def test_slots(resources: dict[str, Any], machines: list[tuple[int, int]], count: int) -> None:
    found = [node(i, *sizes) for i, sizes in enumerate(machines)]
    assert slots(tiny("slots", resources=resources), found) == count


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"cpus": 9}, "asks for 9 cpus and 0 gpus, and of the 2 nodes of the cluster the largest "),
        (
            {"gpus": 1},
            "asks for 1 cpus and 1 gpus, and .* the largest has 8 cpus and 0 gpus: lower",
        ),
    ],
)
def test_what_can_never_be_placed_is_refused(resources: dict[str, Any], message: str) -> None:
    with pytest.raises(ElthError, match=message):
        slots(tiny("slots", resources=resources), TWO)
    with pytest.raises(ElthError, match="of the 0 nodes of the cluster the largest has none"):
        slots(tiny("slots", resources=resources), ())


def test_which_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert address_of(None) is None
    assert address_of("auto") == "auto"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert address_of(None) == "10.0.0.1:6379"
    assert address_of("local") is None
    with pytest.raises(ElthError, match="is the address of a dashboard, to which elth submit"):
        address_of("http://head:8265")


def test_variables_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing secret, and nothing twice: Ray refuses what the job has already."""
    for name in ("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "swordfish")
    found = machines._settings(3)
    assert found["OMP_NUM_THREADS"] == found["TORCHINDUCTOR_COMPILE_THREADS"] == "3"
    assert "swordfish" not in str(found)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    found = machines._settings(3)
    assert (found["NCCL_SOCKET_IFNAME"], found["NCCL_DEBUG"]) == ("ib0", "INFO")
    job = '{"runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1", "NCCL_SOCKET_IFNAME": "eth0"}}}'
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", job)
    found = machines._settings(3)
    assert not found.keys() & {"OMP_NUM_THREADS", "NCCL_SOCKET_IFNAME"}
    assert found["NCCL_DEBUG"] == "INFO"


# What the nodes see


@pytest.fixture
def nodes_see(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], Any]], None]:
    """Have the nodes answer by a function of the question."""

    def answer_by(function: Callable[[Any], Any]) -> None:
        def ask(
            asked: Iterable[Node], question: Any, *words: Any, seconds: float = 90
        ) -> dict[Node, Any]:
            if question is machines.is_here:
                return dict.fromkeys(asked, True)
            assert question is look
            assert seconds > 600, "a node may have datasets to fetch"
            return {one: function(*words) for one in asked}

        monkeypatch.setattr(machines, "ask", ask)
        monkeypatch.setattr(machines, "own_node", str)

    return answer_by


def test_this_node_alone_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "own_node", lambda: node(1).id)
    assert check_places([node(1)], Store.of(tmp_path), None) == []
    assert check_places([node(1)], Store.of("http://host.invalid:1"), None) == []


def test_a_single_node_that_is_another_one_is_asked(
    tmp_path: Path, nodes_see: Callable[[Callable[[Any], Any]], None]
) -> None:
    """As where the driver is on a head without cores: its store would be another than theirs."""
    nodes_see(lambda wanted: {"problems": []})
    with pytest.raises(ElthError, match="1 of 1 nodes write to another .*runs than this machine's"):
        check_places([node(1)], Store.of(tmp_path / "runs"), None)
    with pytest.raises(ElthError, match="need a place that this machine and all nodes can reach"):
        check_places([node(1)], Store.of("http://host.invalid:1"), None)


def test_a_node_that_answers_nothing_is_not_waited_for_as_one_with_work_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, float]] = []

    def ask(some: Iterable[Node], question: Any, *_: Any, seconds: float = 90) -> dict[Node, Any]:
        asked.append((question, seconds))
        return dict.fromkeys(some, "nothing within 90 seconds")

    monkeypatch.setattr(machines, "ask", ask)
    monkeypatch.setattr(machines, "own_node", str)
    with pytest.raises(ElthError, match="node n1 .* does not answer: nothing within 90 seconds"):
        check_places(TWO, Store.of(tmp_path), None)
    assert asked == [(machines.is_here, 90)]


def test_a_shared_directory_will_do(
    tmp_path: Path, nodes_see: Callable[[Callable[[Any], Any]], None]
) -> None:
    nodes_see(look)  # this very machine
    (note,) = check_places(TWO, Store.of(tmp_path / "runs"), str(tmp_path / "flight"))
    assert note.startswith("the store is a directory, whose sqlite database relies on the locks")
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left == [], "nothing is left of the look"


def test_a_directory_of_one_node_is_refused(
    tmp_path: Path, nodes_see: Callable[[Callable[[Any], Any]], None]
) -> None:
    def elsewhere(wanted: dict[str, Any]) -> dict[str, Any]:
        return look({**wanted, "marks": {str(tmp_path / "other"): "mark"}})

    nodes_see(elsewhere)
    message = (
        r"node n1 \(0000\w+\): it does not see in .*other what this machine wrote there: it is "
        "local to a machine. Give a directory that all nodes share, or start an MLflow server and "
        "give its address by --store and a shared place by --storage"
    )
    with pytest.raises(ElthError, match=message):
        check_places(TWO, Store.of(tmp_path / "runs"), None)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_directory_that_only_looks_shared_is_refused(
    tmp_path: Path, nodes_see: Callable[[Callable[[Any], Any]], None]
) -> None:
    nodes_see(lambda wanted: {"problems": []})  # a node writes, and nothing arrives here
    with pytest.raises(ElthError, match="2 of 2 nodes write to another .*runs than this machine's"):
        check_places(TWO, Store.of(tmp_path / "runs"), None)


def test_a_node_that_does_not_answer(
    tmp_path: Path, nodes_see: Callable[[Callable[[Any], Any]], None]
) -> None:
    nodes_see(lambda wanted: "ModuleNotFoundError: No module named 'orchestrator'")
    with pytest.raises(ElthError, match="node n1 .* does not answer: ModuleNotFoundError"):
        check_places(TWO, Store.of(tmp_path), None)


def test_servers_and_databases(tmp_path: Path) -> None:
    with pytest.raises(ElthError, match="the store postgresql://h/db is a database, and each nod"):
        check_places(TWO, Store.of("postgresql://me:pw@h/db"), str(tmp_path))
    with pytest.raises(ElthError, match="checkpoints of trainings in progress need a place that t"):
        check_places(TWO, Store.of("http://tracker:5000"), None)


def test_of_each_node_it_is_told_what_waited_on_its_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def ask(nodes: Iterable[Node], question: Any, *words: Any) -> dict[Node, Any]:
        asked.append((question, *words))
        return dict(zip(nodes, (0, 2, "it is full"), strict=True))

    monkeypatch.setattr(machines, "ask", ask)
    monkeypatch.chdir(tmp_path)
    three = Cluster((*TWO, node(3)))
    assert three.publish(Store.of(tmp_path / "shared")) == []
    assert asked == []
    outbox = tmp_path / "runs" / "outbox"
    second, third = three.publish(Store.of("http://tracker:5000"))
    assert asked == [(machines.publish_left, "http://tracker:5000", str(outbox))]
    assert second.startswith("node n2 (000")
    assert second.endswith(f": 2 finished stages waited in its {outbox} for the store")
    assert third.endswith(f"what finished stages wait in its {outbox} is not published: it is full")


def test_a_node_says_what_it_cannot_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: dict[str, Any] = {
        "marks": {},
        "server": None,
        "storage": None,
        "datasets": [],
        "root": str(tmp_path),
        "download": False,
        "code": Outside().plain(),
    }
    assert look({**wanted, "datasets": ["digits"]}) == {"problems": []}
    (problem,) = look({**wanted, "datasets": ["mnist"]})["problems"]
    assert problem.startswith("the dataset mnist is not in ")
    (problem,) = look({**wanted, "server": "http://127.0.0.1:9"})["problems"]
    assert problem.startswith("cannot reach the MLflow server http://127.0.0.1:9")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(13, "Permission denied")

    other = {"paths": [str(VIT)], "relative": ["vit.py"], "digests": {"vit": "another"}}
    (problem,) = look({**wanted, "code": other})["problems"]
    assert problem.startswith(f"the module 'vit' ({VIT}) is another here than where the command")
    (tmp_path / "mark").write_text("")
    monkeypatch.setattr(Path, "write_text", refuse)
    (problem,) = look({**wanted, "marks": {str(tmp_path): "mark"}})["problems"]
    assert problem.startswith(f"it cannot write {tmp_path} (Permission denied)")
