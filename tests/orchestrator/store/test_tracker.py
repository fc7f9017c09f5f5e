"""One run for each stage in MLflow: what it holds, how it is found, what becomes of the dead."""

from __future__ import annotations

import contextlib
import fcntl
import http.server
import json
import re
import socket
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from elth import masks
from elth.data import info
from elth.errors import ElthError
from elth.specs import Spec
from elth.tensors import read_tensors
from elth.tickets import Ticket, state_digest
from orchestrator.plan.stage import Stage
from orchestrator.store import listing, opening
from orchestrator.store.address import Store
from orchestrator.store.board import BOARDS, ROOT
from orchestrator.store.counting import FLOPS, flops_of
from orchestrator.store.damage import AbsentError
from orchestrator.store.describing import NUMBERS, note_of
from orchestrator.store.listing import INDEX
from orchestrator.store.opening import NOTE, alone, check_reachable
from orchestrator.store.processes import owner
from orchestrator.store.provenance import user
from orchestrator.store.result import Result
from orchestrator.store.runlog import AXES, METRICS
from orchestrator.store.tracker import Tracker
from tests.orchestrator.helpers import (
    ELSEWHERE,
    GONE,
    TINY,
    artifact,
    begin,
    chain,
    epoch,
    grid_file,
    like_this_one,
    rewind_result,
    round_result,
)

# Places


@pytest.mark.parametrize(
    "uri",
    [
        "http://host:5000",
        "https://host/path",
        "sqlite:///runs.db",
        "postgresql://user@host/db",
        "mysql+pymysql://host/db",
    ],
)
def test_an_address_is_left_to_mlflow(uri: str) -> None:
    assert Store.of(uri) == Store(uri, None)
    assert str(Store.of(uri)) == uri


def test_a_directory_is_a_database_and_artifacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Store(f"sqlite:///{tmp_path}/runs/mlflow.db", tmp_path / "runs")
    assert Store.of(tmp_path / "runs") == expected
    monkeypatch.chdir(tmp_path)
    assert Store.of("runs") == Store.of("./x/../runs") == Store.of(None) == expected
    assert str(expected) == str(tmp_path / "runs")
    assert Store.of(str(expected)) == expected  # as a worker is told


def test_the_environment_names_the_store_where_nobody_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert Store.of(None).uri == "http://host:5000"
    assert Store.of(tmp_path).folder == tmp_path
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert Store.of(None).folder == Path.cwd() / "runs"


@pytest.mark.parametrize("place", ["ftp://host", "s3://bucket/x", "S3://bucket"])
def test_an_address_that_mlflow_cannot_use_is_refused(place: str) -> None:
    with pytest.raises(ElthError, match=f"cannot use the store '{place}': give a directory, an ML"):
        Store.of(place)


@pytest.mark.parametrize("name", ["feature%2Fbranch", "what?"])
def test_a_directory_that_no_address_can_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ElthError, match=r"cannot use the store .+: in a database's address \? and"):
        Store.of(tmp_path / name)


def test_whether_a_store_is_there(store: Store, tracker: Tracker, tmp_path: Path) -> None:
    assert tracker.store.is_there
    assert not Store.of(tmp_path).is_there
    assert not Store.of(f"sqlite:///{tmp_path}/mlflow.db").is_there
    assert Store.of(store.uri).is_there
    assert Store.of(f"{store.uri}?timeout=9").is_there
    assert Store.of("http://host").is_there
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ElthError, match=f"cannot use the store {tmp_path}/file, which is a file"):
        Store.of(tmp_path / "file")
    with pytest.raises(ElthError, match=r"cannot write the store /proc/elth: .+; give another"):
        Tracker(Store.of("/proc/elth"))


def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database at all")
    with pytest.raises(ElthError, match=f"cannot use the store {tmp_path}: .*not a database") as e:
        Tracker(Store.of(tmp_path))
    assert "\n" not in str(e.value)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_a_server_that_does_not_answer_is_refused_at_once() -> None:
    uri = f"http://127.0.0.1:{_free_port()}"
    message = f"cannot reach the MLflow server {uri}: Connection refused; is it running"
    with pytest.raises(ElthError, match=message):
        Tracker(Store.of(uri))
    with pytest.raises(ElthError, match="cannot use the store 'http://': it names no host"):
        Store.of("http://")


def test_any_answer_will_do() -> None:
    class Locked(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(401)

        def log_message(self, format: str, *args: Any) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Locked) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        check_reachable(f"http://127.0.0.1:{server.server_port}/")
        thread.join()


def test_a_second_tracker_finds_the_same_store(store: Store, tracker: Tracker) -> None:
    assert Tracker(store).experiments == tracker.experiments
    names = [e.name for e in tracker.client.search_experiments() if e.name.startswith("elth")]
    assert sorted(set(names) - {INDEX, BOARDS, ROOT}) == ["elth", "elth-grids"]
    assert len(names) == len(set(names))


def test_a_store_is_opened_by_one_process_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with alone(tmp_path), (tmp_path / ".opening").open() as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        monkeypatch.setattr(opening, "_ALONE_SECONDS", 0.1)
        with alone(tmp_path):
            pass  # whoever holds it is asleep
    with (tmp_path / ".opening").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with alone(None):
        pass


def test_the_runs_of_a_key_are_found_by_an_index(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    query = "EXPLAIN QUERY PLAN SELECT run_uuid FROM tags WHERE key = ? AND value = ?"
    for _ in range(2):  # the second time it is there
        Tracker(Store.of(tmp_path))
        with contextlib.closing(sqlite3.connect(database)) as base:
            ((*_, how),) = base.execute(query, ("elth.key", "k")).fetchall()
            assert how == "SEARCH tags USING INDEX elth_tags (key=? AND value=?)"
            assert base.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_artifacts_lie_in_the_store(store: Store, tracker: Tracker) -> None:
    assert store.folder is not None
    found = tracker.client.get_experiment_by_name("elth")
    assert found is not None
    assert found.artifact_location == (store.folder / "artifacts").as_uri()


# One stage


def _ticket(result: Result) -> Ticket:
    rewind, mask = rewind_result().rewind, result.mask
    assert rewind is not None
    assert mask is not None
    spec = Spec.parse(TINY)
    return Ticket(network=spec, shape=info("digits").shape, rewind=rewind, mask=mask)


def _done(tracker: Tracker, stage: Stage, result: Result, **changes: str) -> str:
    ticket = None if stage.kind == "rewind_point" else _ticket(result)
    log = begin(tracker, stage, ticket, **changes)
    log.epoch(epoch(1))
    log.finish(result, keep_weights=True)
    return log.run_id


def _history(tracker: Tracker, run_id: str, name: str) -> list[Metric]:
    return list(tracker.client.get_metric_history(run_id, name))


def test_a_run_holds_axes_metrics_tags_and_files(tracker: Tracker) -> None:
    stage = chain("whole", seeds=[20])[2]
    result = round_result(600)
    ticket = _ticket(result)
    log = begin(tracker, stage, ticket, grid="whole", numerics="cpu/torch")
    for number in (1, 2, 3):
        log.epoch(epoch(number, 10.0 * number))
    assert tracker.get(log.run_id).info.status == "RUNNING"
    assert tracker.run_of(stage.key) is None  # nothing is published before the end
    log.finish(result, keep_weights=True)
    run = tracker.get(log.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == stage.title
    params = run.data.params
    assert {name: params[name] for name in AXES} == {
        "network": TINY,
        "method": "imp",
        "source": "-",
        "transform": "-",
        "round": "1",
        "seed": "20",
        "dataset": "digits",
    }
    assert params["kind"] == "round"
    assert (params["nonzeros"], params["prunable"]) == ("600", "11012")
    assert params["sparsity"] == f"{100 - 100 * 600 / 11012:.2f}"
    assert (params["recipe.length"], params["recipe.lr"]) == ("2ep", "0.1")
    tags = run.data.tags
    assert tags["elth.key"] == stage.key
    assert Stage.of(json.loads(tags["elth.stage"])) == stage
    assert result.mask is not None
    assert tags["elth.mask_sha256"] == masks.digest(result.mask)
    assert (tags["grid.whole"], tags["elth.numerics"]) == ("true", "cpu/torch")
    assert tags["elth.owner"] == owner()
    assert torch.__version__.startswith(tags["version.torch"])
    assert tags["host"] == socket.gethostname()
    assert float(tags["elth.seconds"]) >= 0
    assert "elth.collapsed" not in tags
    assert set(run.data.metrics) == {*METRICS, *NUMBERS, *FLOPS}
    assert {name: run.data.metrics[name] for name in FLOPS} == flops_of(stage, result.mask)
    numbers = {name: run.data.metrics[name] for name in NUMBERS}
    assert numbers == {"round": 1, "seed": 20, "sparsity": 94.55, "nonzeros": 600}
    assert (tags["mlflow.user"], run.info.user_id) == (user(), user())
    assert (tags["mlflow.source.name"], tags["mlflow.source.type"]) == ("elth run", "LOCAL")
    assert tags[NOTE] == note_of(stage, tracker.experiments["elth"], "whole")
    assert run.inputs is not None
    assert {(one.dataset.name, one.tags[0].value) for one in run.inputs.dataset_inputs} == {
        ("digits", "train"),
        ("digits", "test"),
    }
    history = _history(tracker, log.run_id, "test_accuracy")
    assert [(m.step, m.value) for m in history] == [(1, 10.0), (2, 20.0), (3, 30.0)]
    assert [m.timestamp for m in history] == sorted(m.timestamp for m in history)
    files = {f.path for f in tracker.client.list_artifacts(log.run_id)}
    assert files == {"experiment.yaml", "layers.json", "result"}
    (one,) = tracker.stages("whole")
    assert (one.run_id, one.key, one.status) == (log.run_id, stage.key, "finished")
    assert (one.nonzeros, one.prunable, one.accuracy) == (600, 11012, 30.0)
    assert (set(one.grids), one.numerics) == ({"whole"}, "cpu/torch")
    assert one.stage.labels == stage.labels


@pytest.mark.parametrize("keep", [True, False])
def test_a_run_tells_the_digests_of_what_its_stage_left(tracker: Tracker, keep: bool) -> None:
    stages, result = chain("digests", seeds=[20]), round_result(600)
    files = {"mask": "mask", "trained": "trained weights"}
    log = begin(tracker, stages[2], _ticket(result), grid="digests")
    log.finish(result, keep_weights=keep)
    tags = tracker.get(log.run_id).data.tags
    for part, kind in files.items():
        path = artifact(tracker, log.run_id, f"result/{part}.safetensors")
        assert path.exists() or (part, keep) == ("trained", False)
        if path.exists():
            _, metadata = read_tensors(path, kind=kind)
            assert tags[f"elth.{part}_sha256"] == metadata["sha256"]
    assert result.kept is not None
    assert tags["elth.trained_sha256"] == state_digest(result.kept)
    assert sum(t.numel() for n, t in result.kept.items() if n in (result.mask or {})) == 600
    start = rewind_result(seed=20)
    assert start.rewind is not None
    tags = tracker.get(_done(tracker, stages[0], start)).data.tags
    assert tags["elth.rewind_sha256"] == state_digest(start.rewind)
    assert "elth.mask_sha256" not in tags


def test_a_layer_without_weights_is_told(tracker: Tracker) -> None:
    stage = chain("collapsed", seeds=[21])[2]
    result = round_result(11_012)
    assert result.mask is not None
    result.mask["layer2.0.downsample.0.weight"][:] = False
    log = begin(tracker, stage, _ticket(result), grid="collapsed")
    log.fail("enough", final=True, details="")
    tags = tracker.get(log.run_id).data.tags
    assert tags["elth.collapsed"] == "layer2.0.downsample.0.weight"


def test_a_rewind_point_comes_back_bit_for_bit(tracker: Tracker) -> None:
    start = chain("bits", seeds=[22])[0]
    result = rewind_result(seed=22)
    _done(tracker, start, result)
    stage, again = tracker.load(start.key)
    assert stage == start
    assert again.rewind is not None
    assert result.rewind is not None
    assert all(again.rewind[name].equal(tensor) for name, tensor in result.rewind.items())
    params = tracker.search(f"tags.`elth.key` = '{start.key}'")
    assert "nonzeros" not in next(params).data.params


def test_a_round_comes_back_bit_for_bit_and_costs_its_non_zeros_only(tracker: Tracker) -> None:
    stage, result = chain("bits", seeds=[22])[2], round_result(100)
    run_id = _done(tracker, stage, result)
    _, again = tracker.load(stage.key)
    assert again.mask is not None
    assert again.trained is not None
    assert result.mask is not None
    assert result.trained is not None
    assert all(again.mask[name].equal(m) for name, m in result.mask.items())
    assert all(again.trained[name].equal(tensor) for name, tensor in result.trained.items())
    sizes = {
        Path(file.path).name: file.file_size or 0
        for file in tracker.client.list_artifacts(run_id, "result")
    }
    assert sizes["mask.safetensors"] + sizes["trained.safetensors"] < 4 * 11_012


# Dead attempts


def _status(tracker: Tracker, key: str) -> dict[str, str]:
    return {one.run_id: one.status for one in tracker.stages() if one.key == key}


@pytest.mark.parametrize(
    ("driver", "status"),
    [
        (GONE, "killed"),
        (owner(), "running"),
        (ELSEWHERE, "running"),
        (like_this_one(start="1", namespace="1.1"), "running"),
    ],
    ids=["gone", "own", "elsewhere", "another namespace"],
)
def test_the_run_of_a_dead_process_counts_as_killed(
    tracker: Tracker, driver: str, status: str
) -> None:
    start = chain("killed", seeds=[30])[0]
    log = begin(tracker, start, driver=driver)
    assert _status(tracker, start.key) == {log.run_id: status}
    log.fail("", final=False, details="")


def test_a_new_attempt_clears_away_the_dead_and_leaves_the_living(tracker: Tracker) -> None:
    start = chain("attempts", seeds=[26])[0]
    dead = begin(tracker, start, driver=GONE)
    far = begin(tracker, start, driver=ELSEWHERE)
    assert _status(tracker, start.key) == {far.run_id: "running"}
    near = begin(tracker, start, driver=like_this_one())
    failed = begin(tracker, start, driver="third-host.invalid:1:1")
    failed.fail("x", final=True, details="")
    mine = begin(tracker, start)
    assert set(_status(tracker, start.key)) == {far.run_id, near.run_id, mine.run_id}
    again = begin(tracker, start)  # the same driver begins anew after its worker died
    assert set(_status(tracker, start.key)) == {far.run_id, near.run_id, again.run_id}
    again.finish(rewind_result(), keep_weights=False)
    assert tracker.run_of(start.key) is not None
    late = begin(tracker, start, driver=ELSEWHERE)
    assert again.run_id in _status(tracker, start.key)  # what is finished stays
    for log in (dead, far, near, mine, late):
        with contextlib.suppress(MlflowException):
            log.fail("", final=False, details="")


def test_of_two_finished_runs_the_first_counts(tracker: Tracker) -> None:
    start = chain("two", seeds=[27])[0]
    one = begin(tracker, start, driver=ELSEWHERE)
    two = begin(tracker, start)
    two.finish(rewind_result(seed=1), keep_weights=False)
    one.finish(rewind_result(seed=2), keep_weights=False)
    found = tracker.run_of(start.key)
    assert found is not None
    assert found.info.run_id == one.run_id
    assert [o.run_id for o in tracker.stages() if o.key == start.key] == [one.run_id, two.run_id]


# Damage


@pytest.mark.parametrize("name", ["mask", "trained"])
def test_a_damaged_file_is_an_error_that_names_it(tracker: Tracker, name: str) -> None:
    stage = chain("damage", seeds=[40])[2]
    run_id = _done(tracker, stage, round_result(600))
    path = artifact(tracker, run_id, f"result/{name}.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    with pytest.raises(ElthError, match=f"{name}.safetensors is damaged: its checksum is not that"):
        tracker.load(stage.key)


def test_files_that_are_gone_are_an_error_that_names_the_run(tracker: Tracker) -> None:
    start = chain("gone", seeds=[28])[0]
    run_id = _done(tracker, start, rewind_result())
    path = artifact(tracker, run_id, "result/rewind.safetensors")
    path.unlink()
    path.parent.rmdir()
    message = rf"rewind.safetensors of {re.escape(start.title)} \(run {run_id[:8]}\) is not there"
    with pytest.raises(AbsentError, match=message):
        tracker.result_of(start, tracker.client.get_run(run_id))


# Finding


def test_a_run_is_found_by_its_id_or_its_key_or_the_beginning_of_one(tracker: Tracker) -> None:
    start = chain("found", seeds=[29])[0]
    run_id = _done(tracker, start, rewind_result())
    for text in (run_id, run_id[:8], start.key, start.key[:8], start.key[:6]):
        assert tracker.get(text).info.run_id == run_id
    for text in ("0123456789", start.key[:5], "what is this?", "a'b"):
        with pytest.raises(ElthError, match=f"has no run or stage '{text}'".replace("?", ".")):
            tracker.get(text)


def test_a_run_that_is_no_stage_is_refused(tracker: Tracker) -> None:
    run_id = tracker.grids.open("nostage", "", {}, "")
    with pytest.raises(ElthError, match=f"run {run_id} is no stage of elth"):
        listing.stage_of(tracker.get(run_id))


def test_runs_of_strangers_are_passed_over(tracker: Tracker) -> None:
    run = tracker.client.create_run(tracker.experiments["elth"], tags={"grid.stranger": "true"})
    assert tracker.stages("stranger") == []
    assert run.info.run_id not in {one.run_id for one in tracker.stages()}


def test_a_search_goes_on_over_pages(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    for stage in chain("pages", seeds=[31])[:3]:
        begin(tracker, stage, grid="pages").fail("", final=False, details="")
    monkeypatch.setattr(listing, "PAGE", 2)
    found = list(tracker.search("tags.`grid.pages` = 'true'"))
    assert len(found) == len({run.info.run_id for run in found}) == 3
    times = [run.info.start_time for run in found]
    assert times == sorted(times)


# Grids


def test_a_grid_is_one_run_however_often_it_is_opened(tracker: Tracker) -> None:
    stages = chain("grid-1")
    plans = [{stage.key: stage for stage in stages[:count]} for count in (2, 3)]
    first = tracker.grids.open("grid-1", "a: 1\n", plans[0], "The first.")
    assert tracker.grids.keys("grid-1") == {stage.key: stage.labels for stage in stages[:2]}
    again = tracker.grids.open("grid-1", "a: 2\n", plans[1], "The second.")
    assert again == first
    assert list(tracker.grids.keys("grid-1")) == [stage.key for stage in stages[:3]]
    run = tracker.grids.run("grid-1")
    assert run is not None
    assert (run.info.status, run.info.run_name) == ("FINISHED", "grid-1")
    note = run.data.tags[NOTE]
    assert note.startswith("The second.\n\nThe grid `grid-1` of elth: 3 stages, which carry the t")
    assert (run.data.tags["mlflow.user"], run.info.user_id) == (user(), user())
    assert grid_file(tracker, "grid-1", "experiment.yaml").read_text() == "a: 2\n"
    assert tracker.grids.names().count("grid-1") == 1


def test_an_unknown_grid_is_refused_with_those_that_are_there(tracker: Tracker) -> None:
    tracker.grids.open("grid-2", "", {}, "")
    for name in ("grid-0", "it's", "a b", ""):
        with pytest.raises(ElthError, match=f"has no grid '{name}' .it has: .*grid-2.*[)]$"):
            tracker.grids.keys(name)


def test_a_grid_that_was_never_begun_to_the_end_is_an_error(tracker: Tracker) -> None:
    tracker.client.create_run(tracker.experiments["elth-grids"], tags={"elth.grid": "grid-3"})
    with pytest.raises(ElthError, match="the grid 'grid-3' in the store .* was never begun to the"):
        tracker.grids.keys("grid-3")


def test_stages_join_a_grid(tracker: Tracker) -> None:
    start, dense = chain("joining", seeds=[32])[:2]
    run_id = _done(tracker, start, rewind_result(), grid="joining-1")
    other = _done(tracker, dense, round_result(11_012), grid="joining-1")
    tracker.grids.join([run_id], "joining-2")
    tracker.grids.join([run_id], "joining-2")
    assert {one.run_id for one in tracker.stages("joining-1")} == {run_id, other}
    (one,) = tracker.stages("joining-2")
    assert (one.run_id, set(one.grids)) == (run_id, {"joining-1", "joining-2"})
    assert tracker.stages("joining") == []


def test_a_report_is_kept_with_its_grid(tracker: Tracker, tmp_path: Path) -> None:
    run_id = tracker.grids.open("grid-4", "", {}, "")
    (tmp_path / "cells.csv").write_text("a,b\n")
    (tmp_path / ".cells.csv.tmp").write_text("of another driver")
    tracker.grids.add_report("grid-4", [tmp_path / "cells.csv"])
    assert [f.path for f in tracker.client.list_artifacts(run_id, "report")] == ["report/cells.csv"]
    tracker.grids.add_report("no-such-grid", [tmp_path / "cells.csv"])
