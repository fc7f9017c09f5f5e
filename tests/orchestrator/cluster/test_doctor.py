"""What ``elth doctor`` finds: every finding says what to do, and what is well says nothing."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from click.testing import CliRunner

import elth
from elth.data import MemoryDataset
from elth.errors import ElthError
from orchestrator.cli.main import cli
from orchestrator.cluster import arithmetic, doctor, machines
from orchestrator.cluster.doctor import Finding
from orchestrator.cluster.jobs import Jobs
from orchestrator.cluster.machines import Node
from orchestrator.store.address import Store
from orchestrator.store.leases import SEEN
from orchestrator.store.processes import owner
from orchestrator.store.tracker import Tracker
from tests.orchestrator.helpers import ELSEWHERE, GONE, Finished, begin, chain, tiny

TWO = (
    Node(id="1" * 40, name="n1", cpus=2, gpus=0),
    Node(id="2" * 40, name="n2", cpus=2, gpus=0),
)


def _wrong(findings: Iterable[Finding]) -> list[str]:
    return [f"{one.about}: {one.what}" for one in findings if not one.is_well]


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with room, whatever this machine has."""
    usage = _Usage(10**12, 0, 10**12)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_a_healthy_project(finished: Finished) -> None:
    done = CliRunner().invoke(cli, ["doctor", "--store", str(finished.store)])
    assert done.exit_code == 0, done.output
    assert "WRONG" not in done.output
    assert done.output.endswith("Nothing is wrong.\n")
    assert f"ok     store: {finished.store} answers and can be written" in done.output


def test_a_folder_that_hides_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert _wrong(doctor.check_shadows()) == []
    (tmp_path / "mlflow.py").write_text("", encoding="utf-8")
    (found,) = doctor.check_shadows()
    assert found.what.startswith(f"trials would import {tmp_path}/mlflow.py (for ")
    assert found.do.startswith("rename it, or give the command in another folder")


def test_a_store_that_is_not_there_yet_is_left_so(tmp_path: Path) -> None:
    assert _wrong(doctor.examine(Store.of(tmp_path / "runs"), tiny("one"), None)) == []
    assert not (tmp_path / "runs").exists()


def test_what_was_deleted_in_mlflows_pages_is_told_and_taken_back(tmp_path: Path) -> None:
    tracker = Tracker(Store.of(tmp_path))
    for experiment in tracker.experiments.values():
        tracker.client.delete_experiment(experiment)
    words = ["doctor", "--store", str(tmp_path)]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 3
    whose = f"of the store {tmp_path} is deleted"
    assert f"WRONG  store: the experiment 'elth' {whose}; nothing is lost" in done.output
    assert f"       -> elth doctor --restore --store {tmp_path} takes it back; to b" in done.output
    assert f"WRONG  store: the experiment 'elth-grids' {whose}; nothing is lost" in done.output
    done = CliRunner().invoke(cli, [*words, "--restore"])
    assert done.exit_code == 0, done.output
    assert f"ok     store: the experiment 'elth' {whose}: it is taken back" in done.output
    assert CliRunner().invoke(cli, words).exit_code == 0


def test_what_can_be_wrong_here(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    path = tmp_path / "sick.yaml"
    path.write_text(tiny("sick").resolved())
    words = ["doctor", str(path), "resources.cpus=9999", "dataset=mnist", "recipe=mnist_mlp"]
    words += ["grid.0.network=mlp1", f"data.root={tmp_path}", "--store", str(store)]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 3
    assert (
        "WRONG  resources: a trial asks for 9999 cpus and 0 gpus, and this machine" in done.output
    )
    assert "WRONG  data: the dataset mnist is not in " in done.output
    assert "WRONG  threads: OMP_NUM_THREADS is 7, and a trial has 9999 cores" in done.output
    assert done.output.count("WRONG") == done.output.count("       -> ") == 3
    assert done.output.endswith("3 things are wrong.\n")


def test_no_more_threads_than_cores_look_at_the_arithmetic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    arithmetic.examine([], 9999, 0)
    arithmetic.examine([], 1, 0)
    now = torch.get_num_threads()
    assert asked == [os.cpu_count(), now, 1, now]


@pytest.mark.parametrize("place", ["localhost:5000", "databricks", "file:///a"])
def test_an_address_that_is_none_is_a_finding(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place)
    done = CliRunner().invoke(cli, ["doctor"])
    assert done.exit_code == 3
    assert f"WRONG  store: cannot use the store '{place}': " in done.output
    assert "(MLFLOW_TRACKING_URI says this one)\n       -> see what the message says" in done.output
    assert "ok     arithmetic: " in done.output  # the rest is looked at all the same
    assert done.output.endswith("1 things are wrong.\n")


def test_a_proxy_in_the_way_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    (finding,) = _wrong(doctor.check_store(Store.of("http://localhost:9")))
    assert finding.startswith(
        "store: http_proxy is set, and a proxy cannot reach http://localhost:9"
    )
    with pytest.raises(ElthError, match="http_proxy is set, and a proxy cannot reach http://127"):
        Jobs("http://127.0.0.1:8265")


def test_surroundings_in_which_a_run_could_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _wrong(doctor.check_scratch()) == []
    monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * 90)
    (finding,) = _wrong(doctor.check_scratch())
    assert finding.startswith("Ray: Ray would keep its files in /xxx")
    assert "(RAY_TMPDIR says so), whose name is " in finding
    assert _wrong(doctor.check_locale()) == []
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    assert _wrong(doctor.check_locale()) == [
        "locale: names of files are in iso8859-1, which lacks most letters"
    ]


def test_a_tracker_that_does_not_answer() -> None:
    (finding,) = _wrong(doctor.check_store(Store.of("http://127.0.0.1:9")))
    assert finding.startswith("store: cannot reach the MLflow server http://127.0.0.1:9: ")


def test_runs_that_were_left_behind(store: Store, tracker: Tracker) -> None:
    stages = chain("left", seeds=[71])
    gone = begin(tracker, stages[0], driver=GONE)
    assert _wrong(doctor.check_store(store)) == [
        f"runs: 1 runs are marked as running and their driver is gone: {gone.run_id}"
    ]
    tracker.client.delete_run(gone.run_id)
    far = begin(tracker, stages[0], driver=ELSEWHERE)
    assert _wrong(doctor.check_store(store)) == []
    long_ago = int((time.time() - 90_000) * 1000)
    old = tracker.client.create_run(
        tracker.experiments["elth"], start_time=long_ago, tags={"elth.owner": ELSEWHERE}
    )
    (finding,) = _wrong(doctor.check_store(store))
    assert finding == (
        "runs: 1 runs are marked as running and have not been heard of for long, by processes "
        f"that cannot be seen from here: {old.info.run_id} (process 1 on another-host.invalid)"
    )
    now = datetime.now(UTC)
    for minutes, is_silent in ((5, False), (20, True)):
        seen = (now - timedelta(minutes=minutes)).isoformat()
        tracker.client.set_tag(old.info.run_id, SEEN, seen)
        assert bool(_wrong(doctor.check_store(store))) is is_silent
    tracker.client.set_tag(old.info.run_id, "elth.owner", owner())
    assert _wrong(doctor.check_store(store)) == [], "it is there"
    for run_id in (far.run_id, old.info.run_id):
        tracker.client.delete_run(run_id)


def test_checkpoints_that_were_set_aside(tmp_path: Path) -> None:
    store = Store.of(tmp_path)
    assert _wrong(doctor.check_storage(None, store)) == []
    (tmp_path / "inflight/abc").mkdir(parents=True)
    (tmp_path / "inflight/abc/1-1.bad").write_text("")
    (finding,) = _wrong(doctor.check_storage(None, store))
    assert "1 checkpoints in " in finding
    assert finding.endswith("were damaged and set aside: abc/1-1.bad")
    (finding,) = _wrong(doctor.check_storage("ftp://x", store))
    assert "cannot use the storage ftp://x" in finding


@pytest.mark.parametrize(
    ("free", "total", "is_well"),
    [(10**9, 10**10, False), (10**10, 10**12, False), (10**10, 5 * 10**10, True)],
)
def test_a_disk_that_is_nearly_full(
    free: int, total: int, is_well: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(total, 0, free))
    assert doctor.room(str(tmp_path / "not/there/yet"), "x").is_well is is_well


# Nodes


def _nodes(monkeypatch: pytest.MonkeyPatch, *changes: dict[str, Any]) -> list[str]:
    one = doctor.describe("")
    answers: dict[Node, Any] = {}
    for node, change in zip(TWO, changes, strict=True):
        answers[node] = change.get("instead", {**one, **change})
    monkeypatch.setattr(machines, "check_places", lambda *_, **__: [])
    monkeypatch.setattr(machines, "ask", lambda *_: answers)
    return _wrong(doctor.check_nodes(TWO, Store.of("runs"), None))


def test_nodes_that_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _nodes(monkeypatch, {}, {}) == []


def test_nodes_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {**doctor.describe("")["versions"], "torch": "1.0"}
    full = dataclasses.replace(doctor.room("/", "Ray"), do="make room")
    found = _nodes(
        monkeypatch,
        {},
        {
            "clock": time.time() + 100,
            "versions": versions,
            "threads": {"OMP_NUM_THREADS": "5"},
            "disks": [full],
        },
    )
    clock, disk, version, threads = found
    assert clock.startswith("clocks: the clock of n2 (22222222) is ")
    assert disk.startswith("disk: n2 (22222222): ")
    assert version.startswith("versions: torch differs: ")
    assert version.endswith("1.0 on n2 (22222222)")
    assert threads == (
        "threads: OMP_NUM_THREADS differs: not set on n1 (11111111); 5 on n2 (22222222)"
    )


def test_a_node_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = _nodes(monkeypatch, {}, {"instead": "nothing within 90 seconds"})
    assert finding == "nodes: n2 (22222222) does not answer: nothing within 90 seconds"


def test_resources_of_a_cluster() -> None:
    assert _wrong(doctor.check_slots(tiny("x"), TWO)) == []
    (finding,) = _wrong(doctor.check_slots(tiny("x", resources={"cpus": 3}), TWO))
    assert "of the 2 nodes of the cluster the largest has 2 cpus and 0 gpus" in finding


def test_room_is_looked_for_above_what_may_not_be_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.stat

    def stat(path: Any, *args: Any, **words: Any) -> os.stat_result:
        if str(path).startswith(f"{tmp_path}/"):
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path, *args, **words)

    monkeypatch.setattr(os, "stat", stat)
    assert "are free at" in doctor.room(f"{tmp_path}/below/it", "Ray").what


def test_classes_of_which_there_is_no_image_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    read = elth.load_dataset("digits")
    labels = read.train_labels.clone()
    labels[labels == 0] = 1
    assert isinstance(read, MemoryDataset)
    (found,) = doctor.check_data(tiny("whole"))
    assert (found.what, found.do) == ("digits can be read", "")
    lacking = dataclasses.replace(read, train_labels=labels)
    monkeypatch.setattr(elth.data, "load", lambda *_, **__: lacking)
    (found,) = doctor.check_data(tiny("lacks"))
    assert found.what == (
        "digits can be read; no training image is of class 0: labels count from 0"
    )
