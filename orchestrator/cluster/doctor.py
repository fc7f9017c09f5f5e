"""``elth doctor``: what is wrong around a run, here and on every node, each with what to do."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elth import plugins
from elth.errors import ElthError
from orchestrator import plan as plans
from orchestrator.cluster import arithmetic, machines
from orchestrator.experiment.sections import Experiment
from orchestrator.store import storage
from orchestrator.store.address import Store
from orchestrator.store.away import plain
from orchestrator.store.processes import in_words, is_alive
from orchestrator.store.soundness import DO_AGAIN, faulty

if TYPE_CHECKING:
    from orchestrator.store.tracker import Tracker

PACKAGES = ("elth", "torch", "torchvision", "ray", "mlflow", "numpy")
_CLOCK_SECONDS = 2.0
_LISTED = 12
_FREE_BYTES = 2 * 10**9
_FREE_SHARE = 0.05
_SILENT_SECONDS = 600.0
"""Of a process that cannot be seen from here; a lease is some seconds, and clocks differ."""
_OLD_SECONDS = 86_400.0
"""The same of one whose version tells no time of its signs of life: since its run began."""

_STAGE_SECONDS = 600.0
"""Of a stage, where it is told how many workers a server serves."""

_USUAL: tuple[Mapping[str, Any], ...] = (
    {
        "text": "resnet14(width=4) on digits in float32",
        "network": "resnet14(width=4)",
        "dataset": "digits",
        "recipe": {"length": "1ep", "rewind": "0ep"},
    },
)
"""What is computed to look at a machine's arithmetic, where no config says what is to be."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    about: str
    what: str
    do: str = ""
    """What to do about it; empty if it is well."""

    @property
    def is_well(self) -> bool:
        """Whether nothing is to be done."""
        return not self.do


def _well(about: str, what: str) -> Finding:
    return Finding(about=about, what=what)


def examine(
    store: Store | None,
    experiment: Experiment | None,
    address: str | None,
    *,
    free: bool = False,
    restore: bool = False,
) -> Iterator[Finding]:
    """Look at everything, one finding after the other.

    Args:
        store: where runs are kept; None where that is not known, and not looked at.
        experiment: what is to be run, if that is known.
        address: the Ray cluster, if there is one.
        free: whether placement groups that dead drivers left are removed.
        restore: whether what was deleted in MLflow's pages and is needed is taken back.
    """
    yield from check_locale()
    yield from check_shadows()
    given = experiment.resources.storage if experiment else None
    if store is not None:
        yield from check_store(store, restore=restore)
        yield from check_storage(given, store)
        yield from check_disks(store, given)
    if experiment is not None:
        yield from check_data(experiment)
    if experiment is not None and experiment.tickets and store is not None:
        yield from check_tickets(experiment, store)
    if address is None:
        yield from check_scratch()
        if experiment is not None:
            yield from check_slots(experiment, None)
        yield from check_threads(experiment)
        yield from check_arithmetic(experiment, None)
        return
    cpus = experiment.resources.cpus if experiment else 1
    try:
        with machines.connected(address, cpus) as nodes:
            names = ", ".join(str(node) for node in nodes)
            yield _well("cluster", f"{len(nodes)} nodes: {names}")
            if experiment is not None:
                yield from check_slots(experiment, nodes)
            yield from check_groups(free=free)
            if store is not None:
                yield from check_nodes(nodes, store, experiment)
            yield from check_arithmetic(experiment, nodes)
    except ElthError as error:
        yield Finding(about="cluster", what=str(error), do="start it, or leave --address out")


def check_shadows() -> Iterator[Finding]:
    """Whether trials would import files of the current folder in the place of packages."""
    from orchestrator.work import shadows

    try:
        shadows.check()
    except ElthError as error:
        what, _, do = str(error).partition(": ")
        yield Finding(about="folder", what=what, do=do)
    else:
        yield _well("folder", f"nothing in {Path.cwd()} hides a package from trials")


def check_store(store: Store, *, restore: bool = False) -> Iterator[Finding]:
    """Whether the store can be reached and written, and runs in it whose process is gone.

    What was deleted in MLflow's pages and is needed is told, or taken back if ``restore`` says so.
    """
    from orchestrator.store.leases import last_seen
    from orchestrator.store.opening import STAGES, check_reachable
    from orchestrator.store.tracker import Tracker, deleted

    if store.folder is not None and not store.is_there:
        yield _well("store", f"{store} is not there yet; the first run makes it")
        return
    try:
        check_reachable(store.uri)
        lost = [] if restore else deleted(store)
        for one in lost:
            yield Finding(about="store", what=f"{one.what}; nothing is lost", do=one.do)
        if any(one.is_needed for one in lost):
            return
        tracker = Tracker(store, restore=restore)
        if restore:
            tracker.tend()
    except ElthError as error:
        yield Finding(about="store", what=str(error), do="see what the message says")
        return
    for note in tracker.notes:
        yield _well("store", note)
    yield _well("store", f"{store} answers and can be written")
    if store.folder is None:
        yield from check_serving(tracker)
    place = str(tracker.client.get_experiment(tracker.experiments[STAGES]).artifact_location)
    is_local = place.startswith("file:") or ":/" not in place
    if store.folder is None and is_local:
        yield Finding(
            about="store",
            what=f"artifacts go to {place}, which every machine would take as its own",
            do="start the server with --artifacts-destination, on a new database",
        )
    gone, silent = [], []
    for run in tracker.search("attributes.status = 'RUNNING'"):
        owner = run.data.tags.get("elth.owner", "")
        lives, seen = is_alive(owner), last_seen(run)
        told_at, limit = (
            (run.info.start_time / 1000, _OLD_SECONDS) if seen is None else (seen, _SILENT_SECONDS)
        )
        if lives is False:
            gone.append(run.info.run_id)
        elif lives is None and time.time() - told_at > limit:
            silent.append(f"{run.info.run_id} ({in_words(owner)})")
    if gone:
        yield Finding(
            about="runs",
            what=f"{len(gone)} runs are marked as running and their driver is gone: {_some(gone)}",
            do="give elth run with their config again: it goes on with them",
        )
    if silent:
        yield Finding(
            about="runs",
            what=f"{len(silent)} runs are marked as running and have not been heard of for long, "
            f"by processes that cannot be seen from here: {_some(silent)}",
            do="look there whether elth run still lives; if not, give it again: it goes on with "
            "them once they have been silent for a lease",
        )
    if not gone and not silent:
        yield _well("runs", "none is left behind")
    wrong = faulty(tracker.stages())
    if wrong:
        networks = dict.fromkeys(str(one.stage.params["network"]) for one in wrong)
        yield Finding(
            about="results",
            what=f"{len(wrong)} finished stages come from gradients that may be wrong, of "
            f"{_some(list(networks))}: see docs/numerics.md",
            do=DO_AGAIN,
        )


def check_serving(tracker: Tracker) -> Iterator[Finding]:
    """How soon a server answers, and for how many workers that is enough."""
    from mlflow.exceptions import MlflowException

    from orchestrator.cluster import serving

    try:
        found = serving.measure(tracker)
    except MlflowException as error:
        yield Finding(about="server", what=plain(error), do="see what the message says")
        return
    each, most = (found.workers(between=b, stage=_STAGE_SECONDS) for b in (5.0, 120.0))
    rate = f"{'at least ' if found.is_more else ''}{found.rate:.0f}"
    what = (
        f"answers in {1000 * found.alone:.0f} ms, {rate} batches of metrics a second to several at "
        f"once: with stages of {_STAGE_SECONDS / 60:.0f} minutes it serves about {each} workers "
        f"that show their epochs every 5 s; more, up to {most}, show them up to two minutes late"
    )
    if found.errors:
        said, count = found.errors.most_common(1)[0]
        yield Finding(
            about="server",
            what=f"{what}; to {found.errors.total()} more it gave errors, {count} times: {said}",
            do="give it the settings of docs/cluster.md, first a larger pool of connections",
        )
    elif found.is_slow:
        yield Finding(
            about="server",
            what=f"{what}; one of twenty answers took {found.late:.1f} s or more",
            do="look what else it does; docs/cluster.md has settings for many workers",
        )
    else:
        yield _well("server", what)


def check_tickets(experiment: Experiment, store: Store) -> Iterator[Finding]:
    """Whether the store has the imported tickets that an experiment starts from."""
    from orchestrator.plan.building import build
    from orchestrator.plan.imported import lacking
    from orchestrator.store.tracker import Tracker

    try:
        tracked = Tracker(store, reading=True).stages() if store.is_there else []
        finished = {one.key for one in tracked if one.status == "finished"}
        known = [one.stage for one in tracked]
        missing = lacking(build(experiment).stages, finished, known, str(store))
    except ElthError as error:
        yield Finding(about="tickets", what=str(error), do="see what the message says")
        return
    for line in missing:
        what, _, do = line.rpartition(": ")
        yield Finding(about="tickets", what=what, do=do)
    if not missing:
        yield _well("tickets", f"{', '.join(experiment.tickets)} in {store}")


def check_locale() -> Iterator[Finding]:
    """Whether files can have any name; texts of ours are UTF-8 everywhere."""
    name = sys.getfilesystemencoding()
    if name.lower().replace("-", "") == "utf8":
        yield _well("locale", "names of files are in UTF-8")
        return
    yield Finding(
        about="locale",
        what=f"names of files are in {name}, which lacks most letters",
        do="set LC_ALL=C.UTF-8, or PYTHONUTF8=1",
    )


def check_scratch() -> Iterator[Finding]:
    """Whether a Ray of our own can keep its files here."""
    from orchestrator.work import scratch

    try:
        yield _well("Ray", scratch.check())
    except ElthError as error:
        yield Finding(about="Ray", what=str(error), do="see what the message says")


def check_storage(given: str | None, store: Store) -> Iterator[Finding]:
    """Whether checkpoints can be written, and those that were set aside as damaged."""
    try:
        found = storage.of(storage.place(given, store))
        if not found.is_local or Path(str(found)).exists():
            found.check()
        bad = [
            f"{folder}/{name}"
            for folder in found.folders()
            for name in found.names(folder)
            if name.endswith(storage.BAD)
        ]
    except (ElthError, OSError) as error:
        yield Finding(about="storage", what=str(error), do="give another by resources.storage")
        return
    yield _well("storage", f"{found} can be written")
    if bad:
        yield Finding(
            about="storage",
            what=f"{len(bad)} checkpoints in {found} were damaged and set aside: {_some(bad)}",
            do="look for errors of the disk or its network; the files themselves can be removed",
        )


def check_disks(store: Store, given: str | None) -> Iterator[Finding]:
    """Whether there is room."""
    from orchestrator.work import scratch

    places = {str(store.folder or Path.cwd()): "the store", str(scratch.folder()[0]): "Ray"}
    found = storage.of(storage.place(given, store))
    if found.is_local:
        places.setdefault(str(found), "checkpoints")
    for place, use in places.items():
        yield room(place, use)


def room(place: str, use: str) -> Finding:
    """Whether there is room at a place."""
    path = Path(place)
    while not os.path.exists(path) and path != path.parent:  # or it may not be looked into
        path = path.parent
    usage = shutil.disk_usage(path)
    share = usage.free / max(usage.total, 1)
    text = f"{usage.free / 1e9:,.1f} GB ({100 * share:.0f} %) are free at {place}, for {use}"
    if usage.free < _FREE_BYTES or (share < _FREE_SHARE and usage.free < 10 * _FREE_BYTES):
        return Finding(about="disk", what=text, do="make room, or take another disk")
    return _well("disk", text)


def check_data(experiment: Experiment) -> Iterator[Finding]:
    """Whether the datasets can be read here."""
    from elth import data

    for name in experiment.datasets:
        try:
            read = data.load(name, experiment.data.root, download=False)
        except ElthError as error:
            if experiment.data.download:
                yield _well("data", f"{name} is not here yet, and may be downloaded")
            else:
                yield Finding(about="data", what=str(error), do="see what the message says")
        else:
            there = set(read.train_labels.unique().tolist())
            empty = [label for label in range(read.info.shape.classes) if label not in there]
            some = ", ".join(map(str, empty[:_LISTED])) + ", ..." * (len(empty) > _LISTED)
            note = f"; no training image is of class {some}: labels count from 0" if empty else ""
            yield _well("data", f"{name} can be read{note}")


def check_slots(
    experiment: Experiment, nodes: tuple[machines.Node, ...] | None
) -> Iterator[Finding]:
    """Whether a trial can ever be placed."""
    from orchestrator.work.resources import check_recipes, local_slots

    want = experiment.resources
    try:
        check_recipes(experiment)
        of = f"of {want.cpus} cpus and {want.gpus:g} gpus"
        if nodes is None:
            told = f"{local_slots(experiment)}, {of}"
        else:
            told = f"{machines.slots(experiment, nodes)} trials at a time {of}"
    except ElthError as error:
        yield Finding(about="resources", what=str(error), do="lower it, or take larger machines")
    else:
        yield _well("resources", told)


def check_threads(experiment: Experiment | None) -> Iterator[Finding]:
    """Whether the environment asks for another number of threads than a trial has cores."""
    text = os.environ.get("OMP_NUM_THREADS")
    if experiment is None or text is None or text == str(experiment.resources.cpus):
        return
    yield Finding(
        about="threads",
        what=f"OMP_NUM_THREADS is {text}, and a trial has {experiment.resources.cpus} cores",
        do="unset it, or set both to the same: it is part of the numerics class",
    )


def check_arithmetic(
    experiment: Experiment | None, nodes: tuple[machines.Node, ...] | None
) -> Iterator[Finding]:
    """Whether a step of each network is computed rightly, here or on every node."""
    wanted: Sequence[Mapping[str, Any]] = _USUAL
    threads, gpus = 1, 0.0
    if experiment is not None:
        wanted = arithmetic.trained(plans.build(experiment).stages.values())
        threads, gpus = experiment.resources.cpus, experiment.resources.gpus
    for one in wanted:
        try:
            if nodes is None:
                answers = {"": arithmetic.examine([one], threads, gpus)}
            else:
                words = ([one], threads, gpus, plugins.in_use())
                asked = machines.ask(nodes, arithmetic.examine, *words)
                answers = {f"{node}: ": told for node, told in asked.items()}
        except (ElthError, RuntimeError) as error:  # torch's, without a GPU or memory
            yield Finding(about="arithmetic", what=str(error), do="see what the message says")
            return
        for place, told in answers.items():
            yield from _arithmetic(place, told)


def _arithmetic(place: str, told: Any) -> Iterator[Finding]:
    """What a machine found of a network; a text, if it gave no answer."""
    if isinstance(told, str):
        do = "look at that node, and give elth doctor again"
        yield Finding(about="arithmetic", what=f"{place}not looked at, {told}", do=do)
        return
    for what, wrong in told:
        if wrong:
            do = "take another version of PyTorch, or older instructions: docs/numerics.md"
            yield Finding(about="arithmetic", what=f"{place}{what}: {wrong}", do=do)
        else:
            yield _well("arithmetic", place + what)


def check_groups(*, free: bool) -> Iterator[Finding]:
    """Placement groups whose driver is dead; they keep resources from everybody else."""
    left = dead_groups()
    if not left:
        yield _well("placement", "no dead driver holds resources")
        return
    what = f"{len(left)} placement groups of dead drivers hold {_held(left)}"
    if not free:
        yield Finding(about="placement", what=what, do="elth doctor --free removes them")
        return
    import ray
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup

    for group in left:
        ray.util.remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))
    yield _well("placement", f"{what}; they are removed")


def dead_groups() -> dict[str, Counter[str]]:
    """Placement groups whose driver is dead, with what each holds."""
    from ray._private.state import state
    from ray.core.generated import gcs_pb2

    kind: Any = vars(gcs_pb2)["PlacementGroupTableData"]
    accessor: Any = state._connect_and_get_accessor()
    found: dict[str, Counter[str]] = {}
    for text in accessor.get_placement_group_table():
        group = kind.FromString(text)
        is_left = group.creator_job_dead and not group.is_detached
        if is_left and group.state != kind.REMOVED:
            held: Counter[str] = Counter()
            for bundle in group.bundles:
                held.update({name: int(much) for name, much in bundle.unit_resources.items()})
            found[group.placement_group_id.hex()] = held
    return found


def _held(groups: Mapping[str, Counter[str]]) -> str:
    total: Counter[str] = Counter()
    for held in groups.values():
        total.update(held)
    return ", ".join(f"{much} {name}" for name, much in sorted(total.items())) or "nothing"


def check_nodes(
    nodes: tuple[machines.Node, ...], store: Store, experiment: Experiment | None
) -> Iterator[Finding]:
    """What nodes see of store, storage and data, and in what they differ."""
    given = experiment.resources.storage if experiment else None
    datasets, root = [], "data"
    if experiment is not None:
        datasets = list(experiment.datasets)
        root = str(experiment.data.root.absolute())
    try:
        for note in machines.check_places(
            nodes,
            store,
            given,
            datasets=datasets,
            data_root=root,
            download=bool(experiment and experiment.data.download),
        ):
            yield _well("nodes", note)
        yield _well("nodes", "every node sees store, storage and data")
    except ElthError as error:
        yield Finding(about="nodes", what=str(error), do="see what the message says")
    before = time.time()
    answers = machines.ask(nodes, describe, str(store.folder or ""))
    after = time.time()
    told: dict[machines.Node, dict[str, Any]] = {}
    for node, answer in answers.items():
        if isinstance(answer, str):
            yield Finding(
                about="nodes", what=f"{node} does not answer: {answer}", do="look at its raylet"
            )
            continue
        told[node] = answer
        off = max(before - answer["clock"], answer["clock"] - after)
        if off > _CLOCK_SECONDS:
            yield Finding(
                about="clocks",
                what=f"the clock of {node} is {off:.0f} s off that of this machine",
                do="have chrony or ntpd keep it: the order of runs relies on it",
            )
        for finding in answer["disks"]:
            if not finding.is_well:
                yield Finding(about="disk", what=f"{node}: {finding.what}", do=finding.do)
    yield from _differ(told, "versions", "install the same: make setup takes requirements.lock")
    yield from _differ(told, "threads", "set OMP_NUM_THREADS alike, or leave it to elth")


def _differ(
    told: Mapping[machines.Node, Mapping[str, Any]], what: str, do: str
) -> Iterator[Finding]:
    names = sorted({name for answer in told.values() for name in answer[what]})
    same = True
    for name in names:
        values: dict[str, list[str]] = {}
        for node, answer in told.items():
            values.setdefault(str(answer[what].get(name, "none")), []).append(str(node))
        if len(values) > 1:
            same = False
            shown = "; ".join(f"{value} on {_some(where)}" for value, where in values.items())
            yield Finding(about=what, what=f"{name} differs: {shown}", do=do)
    if same and told:
        yield _well(what, "the same on every node")


def describe(folder: str) -> dict[str, Any]:
    """What this machine is like; runs on a node."""
    import platform

    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "clock": time.time(),
        "versions": versions,
        "threads": {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set")},
        "disks": [
            room(place, "Ray") for place in (folder, os.environ.get("TMPDIR", "/tmp")) if place
        ],
    }


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
