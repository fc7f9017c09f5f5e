"""A store that is moved, copied, or seen at another path; one that an earlier version made."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from mlflow import MlflowClient

from elth.errors import ElthError
from elth.tickets import Ticket
from orchestrator import plan as plans
from orchestrator.cli.main import cli
from orchestrator.store import files as store_files
from orchestrator.store.address import Store
from orchestrator.store.away import AwayError
from orchestrator.store.files import Files, folder_of, relocated
from orchestrator.store.listing import DAMAGED
from orchestrator.store.tracker import Tracker
from orchestrator.store.verifying import restore, verify
from orchestrator.work.telling import Report
from orchestrator.work.worker import run_job
from tests.orchestrator.helpers import Finished, as_before, job_config

OLD = Path(__file__).parents[2] / "data" / "store_645568c.tar.xz"
"""A store of six stages that commit 645568c made in /srv/lab/runs, and its report as JSON."""

RUN = "0f" * 16


def elth(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def contents(folder: Path) -> dict[str, str]:
    """Every file of a folder with its checksum; of folders that they are there."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with tarfile.open(OLD) as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path


@pytest.mark.parametrize(
    ("address", "now"),
    [
        (f"file:///a/artifacts/{RUN}/artifacts", f"file:///s/artifacts/{RUN}/artifacts"),
        (f"/a b/artifacts/{RUN}/artifacts/x/y", f"file:///s/artifacts/{RUN}/artifacts/x/y"),
        (f"file:///artifacts/1/artifacts/{RUN}/artifacts/", f"file:///s/artifacts/{RUN}/artifacts"),
        ("file:///a/artifacts", "file:///a/artifacts"),
        (f"file:///a/artifacts/{RUN}", f"file:///a/artifacts/{RUN}"),
        (f"file:///a/artifacts/{RUN}x/artifacts", f"file:///a/artifacts/{RUN}x/artifacts"),
    ],
)
def test_an_address_that_was_recorded_is_one_of_the_folder(address: str, now: str) -> None:
    assert relocated(address, Path("/s")) == now


def test_files_of_a_directory_are_found_by_its_folder_alone(tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.create_experiment("x", artifact_location=(tmp_path / "never").as_uri())
    run_id = client.create_run(experiment).info.run_id
    files = Files(client, tmp_path)
    files.write(run_id, "a/b.txt", b"text")
    assert (folder_of(tmp_path, run_id) / "a" / "b.txt").read_bytes() == b"text"
    (tmp_path / "c.txt").write_bytes(b"more")
    files.add(run_id, tmp_path / "c.txt", "a")
    assert files.sizes(run_id, "a") == {"b.txt": 4, "c.txt": 4}
    assert files.read(run_id, "a/c.txt") == b"more"
    files.remove(run_id, "a/c.txt")
    assert files.sizes(run_id, "a") == {"b.txt": 4}
    with pytest.raises(FileNotFoundError):
        files.read(run_id, "a/c.txt")
    assert files.sizes(run_id, "none") == {}
    assert not (tmp_path / "never").exists()


def test_a_server_that_keeps_files_to_itself_is_refused(tmp_path: Path) -> None:
    class Server:
        tracking_uri = "http://host:5000"

        def get_run(self, run_id: str) -> object:
            info = type("Info", (), {"artifact_uri": "file:///disk/1/artifacts"})
            return type("Run", (), {"info": info})

    files = Files(Server(), None)  # type: ignore[arg-type]
    with pytest.raises(ElthError, match=r"not handed out: start it with --artifacts-destination"):
        files.read("1", "x")


def test_a_server_is_asked_once_where_the_files_of_a_run_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Server:
        tracking_uri = "http://tracker"

        def get_run(self, run_id: str) -> Any:
            asked.append(run_id)
            place = (tmp_path / run_id).as_uri().replace("file://", "file-plugin://")
            return SimpleNamespace(info=SimpleNamespace(run_id=run_id, artifact_uri=place))

    addresses: list[str] = []

    class Repository:
        def list_artifacts(self, _: object) -> list[object]:
            return []

    def repository(address: str, _: str) -> Repository:
        addresses.append(address)
        return Repository()

    monkeypatch.setattr(store_files, "get_artifact_repository", repository)
    monkeypatch.setattr(store_files, "_KNOWN", 2)
    files = Files(Server(), None)  # type: ignore[arg-type]
    files.know(Server().get_run("begun"))
    asked.clear()
    for name in ("begun", "other", "begun", "other"):
        files.sizes(name)
    assert asked == ["other"]
    assert [one.rpartition("/")[2] for one in addresses] == ["begun", "other", "begun", "other"]
    files.sizes("third")  # no more than two are kept
    files.sizes("begun")
    assert asked == ["other", "third", "begun"]


def test_a_database_of_a_directory_is_that_directory(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert Store.of(uri).folder is None
    (tmp_path / "artifacts").mkdir()
    assert Store.of(uri) == Store.of(tmp_path)


def test_a_store_of_an_earlier_version_is_read_where_it_lies(old: Path, no_training: None) -> None:
    store = Store.of(old / "runs")
    before = contents(old / "runs")
    told = elth("report", "small", "--json", "--store", old / "runs")
    assert as_before(told.output) == (old / "report.json").read_text(encoding="utf-8")
    assert "6 finished stages" in (told := elth("verify", "--store", old / "runs")).output
    assert "6 whole" in told.output
    assert elth("status", "small", "--store", old / "runs").exit_code == 0
    tracker = Tracker(store, reading=True)
    last = next(one for one in tracker.stages() if one.stage.labels["round"] == 2)
    ticket = old / "ticket.safetensors"
    assert elth("ticket", "export", last.key, "-o", ticket, "--store", old / "runs").exit_code == 0
    assert Ticket.load(ticket).nonzeros == last.nonzeros
    assert contents(old / "runs") == before, "nothing was written"
    experiment, built = plans.of_file(old / "small.yaml", ())
    known = {one.key: one.stage for one in tracker.stages() if one.status == "finished"}
    others = {known[key].labels["method"] for key in known.keys() - built.stages.keys()}
    assert others == {"random"}, "Random draws otherwise since; all else is found"
    found = [stage for key, stage in built.stages.items() if key in known]
    assert not _failures(run_job(job_config(store, experiment, found)))


def test_a_store_that_cannot_be_written_is_read(old: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere: faults/ has it on a disk mounted read-only")
    for path in (old / "runs", *(old / "runs").rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    told = elth("report", "small", "--json", "--store", old / "runs")
    assert as_before(told.output) == (old / "report.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("way", ["moved", "copied", "linked"])
def test_what_is_done_in_another_place_stays_there(
    old: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new round goes into the store that is named, whatever its database has recorded."""
    first, second = old / "first", old / "second"
    (old / "runs").rename(first)
    if way == "moved":
        first.rename(second)
    elif way == "copied":
        shutil.copytree(first, second)
    else:
        second.symlink_to(first)
    before = contents(first) if way == "copied" else {}
    plain = yaml.safe_load((old / "small.yaml").read_text(encoding="utf-8"))
    plain["grid"] = plain["grid"][:1]
    plain["pruning"]["rounds"] = 3
    (old / "more.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
    experiment, built = plans.of_file(old / "more.yaml", ())
    store = Store.of(second)
    assert not list(_failures(run_job(job_config(store, experiment, built.stages.values()))))
    tracker = Tracker(store)
    done = {one.key: one.run_id for one in tracker.stages() if one.status == "finished"}
    assert set(built.stages) <= set(done)
    for key in built.stages:
        assert (folder_of(second, done[key]) / "result").is_dir()
    if way == "copied":
        assert contents(first) == before


def _failures(reports: Iterable[Report]) -> list[str]:
    return [one.failed for one in reports if one.failed]


def test_most_files_away_is_one_error_and_changes_nothing(old: Path) -> None:
    store = old / "runs"
    (store / "artifacts").rename(old / "elsewhere")
    before = contents(store)
    for words in (("ticket", "show"), ("verify",)):
        run = [one.run_id for one in Tracker(Store.of(store), reading=True).stages()][-1]
        told = elth(*words, *([run] if words[0] == "ticket" else []), "--store", store)
        assert isinstance(told.exception, AwayError)
        assert "have none" in str(told.exception)
        assert "Is the disk mounted" in str(told.exception)
    assert contents(store) == before
    (old / "elsewhere").rename(store / "artifacts")
    assert "6 whole" in elth("verify", "--store", store).output


def test_a_run_is_not_begun_where_the_files_of_its_parents_are_away(old: Path) -> None:
    store = old / "runs"
    (store / "artifacts").rename(old / "elsewhere")
    told = elth("run", old / "small.yaml", "pruning.rounds=3", "--store", store)
    assert isinstance(told.exception, AwayError)
    assert "Is the disk mounted" in str(told.exception)
    assert len(Tracker(Store.of(store), reading=True).stages()) == 6


def test_verify_marks_only_if_it_is_asked_to_and_takes_back_what_is_whole(old: Path) -> None:
    store = old / "runs"
    tracker = Tracker(Store.of(store))
    _, second, third, *_ = tracker.stages()
    bad = folder_of(store, second.run_id) / "result" / "mask.safetensors"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:-3] + b"xyz")
    (gone := folder_of(store, third.run_id) / "result").rename(old / "kept")
    before = contents(store)
    told = elth("verify", "--store", store)
    assert told.exit_code == 3
    assert "4 whole, 1 whose files are not there, 1 damaged; elth verify --set-aside" in told.output
    assert "; put back what is not there, or elth verify --set-aside --absent lets" in told.output
    assert contents(store) == before
    assert elth("verify", "--set-aside", "--absent", "--store", store).exit_code == 3
    status = {one.run_id: one.status for one in tracker.stages()}
    assert status[second.run_id] == status[third.run_id] == "set aside"
    assert "set aside: " in elth("status", "small", "--store", store).output
    told = elth("verify", "--restore", "--store", store)
    assert "0 stages in" in told.output
    assert "still damaged: " in told.output
    bad.write_bytes(whole)
    (old / "kept").rename(gone)
    told = elth("verify", "--restore", "--store", store)
    assert "2 stages in" in told.output
    assert "6 whole" in elth("verify", "--store", store).output
    assert DAMAGED not in tracker.client.get_run(second.run_id).data.tags
    assert {one.status for one in tracker.stages()} == {"finished"}


def test_what_was_done_again_or_is_unsound_is_not_taken_back(finished: Finished) -> None:
    tracker = finished.tracker
    one = next(s for s in tracker.stages() if s.stage.kind == "rewind_point")
    run = tracker.client.get_run(one.run_id)
    tracker.set_aside(run, "its gradients may have been wrong")
    try:
        assert list(restore(tracker)) == []
    finally:
        tracker.take_back(run)
    assert {found.state for found in verify(tracker)} == {"whole"}


def test_files_that_are_cut_are_told_by_their_size(old: Path, finished: Finished) -> None:
    one = next(s for s in finished.tracker.stages() if s.stage.kind == "round")
    tags = finished.tracker.client.get_run(one.run_id).data.tags
    sizes = finished.tracker.files.sizes(one.run_id, "result")
    assert json.loads(tags["elth.files"]) == sizes


def test_a_store_without_experiments_is_not_made_by_reading(tmp_path: Path) -> None:
    MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}").create_experiment("other")
    before = sorted(tmp_path.iterdir())
    told = elth("report", "small", "--store", tmp_path)
    assert isinstance(told.exception, ElthError)
    assert "was not made by elth run" in str(told.exception)
    assert sorted(tmp_path.iterdir()) == before


def test_the_files_of_most_stages_must_be_there(old: Path) -> None:
    tracker = Tracker(Store.of(old / "runs"), reading=True)
    runs = [one.run_id for one in tracker.stages()]
    tracker.check_files()
    tracker.check_files([])
    for run_id in runs[:3]:
        shutil.rmtree(folder_of(old / "runs", run_id))
    tracker.check_files(runs)
    tracker.check_files(runs[:1])  # all that is needed has none, and most of the store has
    shutil.rmtree(folder_of(old / "runs", runs[3]))
    with pytest.raises(AwayError, match="of 6 finished stages that were looked at, 4 have none"):
        tracker.check_files(runs)
