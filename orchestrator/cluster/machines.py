"""A Ray cluster that is there already: its nodes, what fits on them, and what each of them sees."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from elth.errors import ElthError
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.outside import Outside, take
from orchestrator.plan.places import trials_on, workers_on
from orchestrator.store import storage
from orchestrator.store.address import Store
from orchestrator.work.passing import open_settings
from orchestrator.work.resources import asking, numerics_here
from orchestrator.work.stopping import like_ctrl_c

_ANSWER_SECONDS = 90.0
"""What a node gets to start a process and answer."""
_LOOK_SECONDS = 1800.0
"""What it gets to look around: it may have to fetch datasets, or list a million files."""

HANDED = "ELTH_HANDED_OVER"
"""Names the package in which ``elth submit`` hands over variables that Ray must not show."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine of the cluster."""

    id: str
    name: str
    cpus: int
    gpus: int

    def __str__(self) -> str:
        return f"{self.name} ({self.id[:8]})"


def address_of(given: str | None) -> str | None:
    """The cluster that is meant: what was given, else ``RAY_ADDRESS``; None for a Ray of our own.

    Raises:
        ElthError: the address is that of a dashboard.
    """
    address = given or os.environ.get("RAY_ADDRESS") or None
    if address and address.startswith(("http://", "https://")):
        raise ElthError(
            f"{address} is the address of a dashboard, to which elth submit gives jobs; elth run "
            "wants that of the cluster, as HOST:6379, or auto on one of its machines"
        )
    return None if address == "local" else address


@contextlib.contextmanager
def connected(address: str, cpus: int) -> Iterator[tuple[Node, ...]]:
    """Connect to a cluster; gives its nodes.

    Args:
        address: where it is, as ``HOST:6379`` or ``auto``.
        cpus: cores of a trial.

    Raises:
        ElthError: there is none, with the reason.
    """
    import ray

    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": _settings(cpus)},
        )
    except Exception as error:  # Ray's, of many kinds
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise ElthError(
            f"cannot connect to the Ray cluster {address}: {first}; is it running, is this one of "
            "its machines, and is the token the same (ray get-auth-token)?"
        ) from error
    from orchestrator.work.local import messages_to_stderr  # it has Ray imported

    try:
        like_ctrl_c()
        messages_to_stderr()
        _take_handed_over()
        yield nodes()
    finally:
        ray.shutdown()


def _settings(cpus: int) -> dict[str, str]:
    """Variables that a worker must have when its process starts; nothing secret, as Ray shows them.

    What a job that was submitted has already is left out, as Ray takes no variable twice.
    """
    wanted = {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(cpus)),
        "TORCHINDUCTOR_COMPILE_THREADS": os.environ.get("TORCHINDUCTOR_COMPILE_THREADS", str(cpus)),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        **open_settings(),
    }
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        wanted["TORCHINDUCTOR_CACHE_DIR"] = os.environ["TORCHINDUCTOR_CACHE_DIR"]
    job = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "")
    return {name: value for name, value in wanted.items() if f'"{name}"' not in job}


def nodes() -> tuple[Node, ...]:
    """The machines of the cluster that are alive and have a core to give."""
    import ray

    found = []
    for one in ray.nodes():
        has = one["Resources"]
        if one["Alive"] and has.get("CPU", 0) >= 1:
            name = one.get("NodeManagerHostname") or one["NodeManagerAddress"]
            found.append(
                Node(
                    id=one["NodeID"],
                    name=name,
                    cpus=int(has["CPU"]),
                    gpus=int(has.get("GPU", 0)),
                )
            )
    return tuple(sorted(found, key=lambda node: (node.name, node.id)))


def slots(experiment: Experiment, machines: Iterable[Node]) -> int:
    """How many trials run at a time: no worker lies across two machines.

    Raises:
        ElthError: not even one; the message has the numbers.
    """
    want = experiment.resources
    machines = tuple(machines)
    room = [workers_on(want, cpus=node.cpus, gpus=node.gpus) for node in machines]
    have = trials_on(want, room)
    if have < 1:
        most = max(machines, key=lambda node: (node.gpus, node.cpus), default=None)
        largest = f"{most.cpus} cpus and {most.gpus} gpus" if most else "none to give"
        raise ElthError(
            f"{asking(want)} for {want.cpus} cpus and {want.gpus:g} gpus, and of the "
            f"{len(machines)} nodes of the cluster the largest has {largest}: lower "
            "resources.cpus or resources.gpus, or start larger nodes"
            + ", or let its workers lie otherwise by resources.placement"
            * (sum(room) >= want.workers)
        )
    return min(have, want.concurrent or have)


@dataclass(frozen=True)
class Cluster:
    """Trials run on the nodes of a cluster (``work.driver.Machines``)."""

    nodes: tuple[Node, ...]

    def slots(self, experiment: Experiment) -> int:
        """As ``slots``."""
        return slots(experiment, self.nodes)

    def check(
        self, experiment: Experiment, store: Store, datasets: Iterable[str], code: Outside
    ) -> list[str]:
        """As ``check_places``, of an experiment's storage and data."""
        return check_places(
            self.nodes,
            store,
            experiment.resources.storage,
            datasets=datasets,
            data_root=str(experiment.data.root.absolute()),
            download=experiment.data.download,
            code=code,
        )

    def numerics(self, classes: Iterable[tuple[int, float, str, int]]) -> set[str]:
        """The numerics classes of the nodes that answer."""
        answers = ask(self.nodes, numerics_here, list(classes)).values()
        return set().union(*(found for found in answers if not isinstance(found, str)))

    def publish(self, store: Store) -> list[str]:
        """Have each node publish what waits in its outbox, where the store is no shared directory.

        A stage that ends while a server is away for too long waits on the disk of its node.
        """
        if store.folder is not None:
            return []
        outbox = str(store.outbox)
        notes = []
        for node, found in ask(self.nodes, publish_left, store.uri, outbox).items():
            if isinstance(found, str):
                notes.append(
                    f"node {node}: what finished stages wait in its {outbox} is not published: "
                    f"{found}"
                )
            elif found:
                count = "a finished stage" if found == 1 else f"{found} finished stages"
                notes.append(f"node {node}: {count} waited in its {outbox} for the store")
        return notes


@contextlib.contextmanager
def cluster(address: str, cpus: int) -> Iterator[Cluster]:
    """Connect to a cluster, as ``connected``, for the driver of a run."""
    with connected(address, cpus) as found:
        yield Cluster(found)


def check_places(
    machines: Iterable[Node],
    store: Store,
    given: str | None,
    *,
    datasets: Iterable[str] = (),
    data_root: str = "data",
    download: bool = False,
    code: Outside | None = None,
) -> list[str]:
    """Have every node look at the store, the storage (as given, or None), data and code.

    Returns what a person should know though it is no error.

    Raises:
        ElthError: a node cannot see, read or write what this machine does; the message names the
            node and says what to do.
    """
    machines = tuple(machines)
    if not machines or {node.id for node in machines} == {own_node()}:
        return []
    if store.folder is None and not store.uri.startswith("http"):
        raise ElthError(
            f"the store {store} is a database, and each node of a cluster would need its "
            "artifacts, too: start an MLflow server on it (mlflow server "
            "--backend-store-uri ...) and give its address by --store"
        )
    inflight = storage.place(given, store)
    found = storage.of(inflight)
    if store.folder is None and given is None:
        raise ElthError(
            "the store is a server, and checkpoints of trainings in progress need a place that "
            "this machine and all nodes can reach: give a shared directory or an address as "
            "s3://BUCKET/PATH by --storage or resources.storage"
        )
    shared = [str(store.folder)] if store.folder else []
    shared += [inflight] if found.is_local else []
    with _marks(shared) as marks:
        wanted = {
            "marks": marks,
            "server": store.uri if store.folder is None else None,
            "storage": None if found.is_local else inflight,
            "datasets": list(datasets),
            "root": data_root,
            "download": download,
            "code": (code or Outside()).plain(),
        }
        for node, answer in ask(machines, is_here).items():
            if isinstance(answer, str):
                raise ElthError(f"node {node} does not answer: {answer}")
        for node, answer in ask(machines, look, wanted, seconds=_LOOK_SECONDS).items():
            if isinstance(answer, str):
                raise ElthError(f"node {node} does not answer: {answer}")
            for problem in answer["problems"]:
                raise ElthError(f"node {node}: {problem}")
        for folder, mark in marks.items():
            names = {path.name for path in Path(folder).glob(f"{mark}.*")}
            if len(names) < len(machines):
                raise ElthError(
                    f"{len(machines) - len(names)} of {len(machines)} nodes write to another "
                    f"{folder} than this machine's: {_REMEDY}"
                )
    if store.folder is not None:
        return [
            "the store is a directory, whose sqlite database relies on the locks of the shared "
            "file system; an MLflow server (--store http://HOST:5000) does not"
        ]
    return []


_REMEDY = (
    "it is local to a machine. Give a directory that all nodes share, or start an MLflow server "
    "and give its address by --store and a shared place by --storage"
)


@contextlib.contextmanager
def _marks(folders: Iterable[str]) -> Iterator[dict[str, str]]:
    """A fresh file in each folder, by which another machine knows that it sees the same one."""
    marks = {}
    try:
        for folder in dict.fromkeys(folders):
            mark = f".elth-mark-{uuid.uuid4().hex}"
            try:
                Path(folder).mkdir(parents=True, exist_ok=True)
                (Path(folder) / mark).write_text(socket.gethostname(), encoding="utf-8")
            except OSError as error:
                raise ElthError(f"cannot write {folder}: {error.strerror}") from error
            marks[folder] = mark
        yield marks
    finally:
        for folder, mark in marks.items():
            for path in Path(folder).glob(f"{mark}*"):
                path.unlink(missing_ok=True)


def own_node() -> str:
    """The node of the cluster that this process is on; empty without a cluster."""
    import ray

    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else ""


def is_here() -> bool:
    """Whether a node answers at all; runs on a node."""
    return True


def ask(
    machines: Iterable[Node], question: Any, *words: Any, seconds: float = _ANSWER_SECONDS
) -> dict[Node, Any]:
    """Call a function on every node; what it returns, or why there is no answer as text.

    Args:
        machines: the nodes.
        question: the function, which they import by its name.
        words: its arguments.
        seconds: what they get for it; what has not answered by then is told to end.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from orchestrator.work.passing import passed

    remote = ray.remote(num_cpus=0, max_retries=0)(_answer)
    hidden = ray.put(passed())
    waiting: dict[Any, Node] = {}
    for node in machines:
        here = NodeAffinitySchedulingStrategy(node.id, soft=False)
        asked: Any = remote.options(scheduling_strategy=here)
        waiting[asked.remote(hidden, question.__module__, question.__name__, words)] = node
    ray.wait(list(waiting), num_returns=len(waiting), timeout=seconds)
    answers: dict[Node, Any] = {}
    for task, node in waiting.items():
        try:
            answers[node] = ray.get(task, timeout=0)
        except ray.exceptions.GetTimeoutError:
            answers[node] = f"nothing within {seconds:.0f} seconds"
            ray.cancel(task, force=True)
        except Exception as error:  # the node's, or Ray's
            lines = [line for line in str(error).splitlines() if line.strip()] or ["no reason"]
            answers[node] = lines[-1].strip()
    return answers


def _answer(hidden: Any, module: str, name: str, words: tuple[Any, ...]) -> Any:
    # By name: a node without elth then says that it has no such module.
    import importlib

    hidden.apply()
    return getattr(importlib.import_module(module), name)(*words)


def look(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What this node cannot do of what a trial will have to; runs on a node."""
    problems = []
    for folder, mark in wanted["marks"].items():
        problem = _look_at(Path(folder), mark)
        if problem:
            problems.append(problem)
    try:
        take(wanted["code"])
        if wanted["server"]:
            from orchestrator.store.opening import check_reachable

            check_reachable(wanted["server"])
        if wanted["storage"]:
            storage.of(wanted["storage"]).check()
        for name in wanted["datasets"]:
            from elth import data

            data.load(name, wanted["root"], download=wanted["download"])
    except ElthError as error:
        problems.append(str(error))
    return {"problems": problems}


def publish_left(address: str, outbox: str) -> int:
    """Publish what waits in an outbox of this node; how many stages. Runs on a node."""
    folder = Path(outbox)
    if not any(folder.glob("*/entry.json")):
        return 0  # as nearly always, before anything large is imported
    from orchestrator.store.outbox import publish_all
    from orchestrator.store.tracker import Tracker

    return publish_all(Tracker(Store.of(address)), folder)


def _look_at(folder: Path, mark: str) -> str | None:
    if not (folder / mark).exists():
        return f"it does not see in {folder} what this machine wrote there: {_REMEDY}"
    try:
        (folder / f"{mark}.{uuid.uuid4().hex}").write_text("", encoding="utf-8")
    except OSError as error:
        return f"it cannot write {folder} ({error.strerror}): let this user write there"
    return None


def _take_handed_over() -> None:
    """Take over what ``elth submit`` handed over, and remove it from the cluster's memory.

    Raises:
        ElthError: it is gone; Ray keeps it for ten minutes until it is taken.
    """
    name = os.environ.pop(HANDED, None)
    if name is None:
        return
    import json

    from ray.experimental import internal_kv

    text = internal_kv._internal_kv_get(name)
    if text is None:
        raise ElthError(
            "what elth submit handed over (credentials of the tracker) is not there any more: the "
            "job waited longer than Ray keeps it. Submit it again"
        )
    internal_kv._internal_kv_del(name)
    os.environ.update(json.loads(text))
