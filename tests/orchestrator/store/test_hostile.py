"""Files from elsewhere: nothing in them is executed, leads out of its folder or fills memory."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

from elth import data
from elth.checkpoints import Checkpoint
from elth.data.prepared import _Shard
from elth.errors import ElthError
from elth.tickets import Ticket
from orchestrator import experiment
from orchestrator.store.files import FILES
from orchestrator.store.inflight import InFlight
from orchestrator.store.listing import INDEX, POINTER, Index, tracked
from orchestrator.store.outbox import publish_all
from orchestrator.store.tracker import Tracker
from tests.orchestrator.helpers import (
    artifact,
    begin,
    chain,
    grid_file,
    rewind_result,
    round_result,
)


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def _pickled(path: Path) -> bytes:
    return pickle.dumps(Trap(path))


def _saved(path: Path) -> bytes:
    file = io.BytesIO()
    torch.save({"weights": Trap(path)}, file)
    return file.getvalue()


def _tagged(path: Path) -> bytes:
    return f'!!python/object/apply:open ["{path}", "w"]\n'.encode()


def _huge(_: Path) -> bytes:
    """A safetensors file that says that its header has 10 GB."""
    return struct.pack("<Q", 10 * 10**9) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'


def _wide(_: Path) -> bytes:
    """One whose header says that a tensor has 10 GB."""
    header = b'{"a":{"dtype":"U8","shape":[10000000000],"data_offsets":[0,10000000000]}}'
    return struct.pack("<Q", len(header)) + header + b"\x00" * 64


PAYLOADS = {one.__name__.strip("_"): one for one in (_pickled, _saved, _tagged, _huge, _wide)}


@pytest.fixture(params=PAYLOADS)
def payload(request: pytest.FixtureRequest, tmp_path: Path) -> Payload:
    return Payload(PAYLOADS[request.param], tmp_path / "sprung")


class Payload:
    """What is put into a file, and whether it has sprung."""

    def __init__(self, make: Callable[[Path], bytes], canary: Path) -> None:
        self.data = make(canary)
        self.canary = canary

    def check(self) -> None:
        assert not self.canary.exists(), "it was executed"


def test_the_traps_work(tmp_path: Path) -> None:
    for number, make in enumerate((_pickled, _saved, _tagged)):
        canary = tmp_path / str(number)
        content = make(canary)
        if make is _pickled:
            pickle.loads(content).close()
        elif make is _saved:
            torch.load(io.BytesIO(content), weights_only=False)["weights"].close()
        else:
            yaml.load(content, yaml.UnsafeLoader).close()
        assert canary.exists()


READERS: dict[str, Callable[[Path], object]] = {
    "ticket": Ticket.load,
    "checkpoint": Checkpoint.read,
    "shard": _Shard.open,
    "manifest": lambda path: data.info(f"folder(manifest={path},size=8)"),
    "config": experiment.load,
}


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_a_person_names(payload: Payload, reader: str, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(payload.data)
    with pytest.raises(ElthError):
        READERS[reader](path)
    payload.check()


@pytest.mark.parametrize("name", ["rewind", "mask", "trained"])
def test_the_files_of_a_finished_stage(payload: Payload, tracker: Tracker, name: str) -> None:
    start, _, stage, _ = chain("hostile", seeds=[90])
    one = start if name == "rewind" else stage
    log = begin(tracker, one)
    log.finish(rewind_result() if name == "rewind" else round_result(600), keep_weights=True)
    artifact(tracker, log.run_id, f"result/{name}.safetensors").write_bytes(payload.data)
    tracker.client.delete_tag(log.run_id, FILES)  # else its size gives it away
    with pytest.raises(ElthError, match=f"{name}.safetensors is no whole safetensors file"):
        tracker.load(one.key)
    payload.check()
    tracker.client.delete_run(log.run_id)


def test_a_checkpoint_of_another_attempt(payload: Payload, tmp_path: Path) -> None:
    inflight = InFlight(tmp_path, "a" * 64, "cpu", 0)
    inflight.place.mkdir()
    (inflight.place / "other-000000000021.safetensors").write_bytes(payload.data)
    assert inflight.newest() is None
    assert len(inflight.notes) == 1
    assert len(list(inflight.place.glob("*.bad"))) == 1
    payload.check()


@pytest.mark.parametrize("name", ["keys.json", "experiment.yaml", "joined.json"])
def test_the_files_of_a_grid(payload: Payload, tracker: Tracker, name: str) -> None:
    run_id = tracker.grids.open("hostile", "name: hostile\n", {}, "")
    for tag in list(tracker.client.get_run(run_id).data.tags):
        if tag.startswith("elth.sha256"):  # whoever writes the file writes its checksum, too
            tracker.client.delete_tag(run_id, tag)
    is_joined = name == "joined.json"
    path = artifact(tracker, run_id, name) if is_joined else grid_file(tracker, "hostile", name)
    with open(path, "wb") as file:
        file.write(payload.data)
    for read in (tracker.grids.keys, tracker.grids.experiment):
        with contextlib.suppress(ElthError):
            read("hostile")
    log = begin(tracker, chain("hostile", seeds=[91])[0])
    tracker.grids.join_finished([tracked(tracker.get(log.run_id))], "hostile")
    tracker.client.delete_run(log.run_id)
    payload.check()


@pytest.mark.parametrize("folder", ["../../outside/", "/", "content/1/../../", "file:///"])
def test_the_folder_of_a_grid_that_leads_out(tracker: Tracker, folder: str) -> None:
    name = "hostile-folder"
    run_id = tracker.grids.open(name, "name: hostile\n", {}, "")
    tracker.client.log_param(run_id, "content/99", folder)
    tracker.client.log_param(run_id, "content/x", folder)
    for read in (tracker.grids.keys, tracker.grids.experiment):
        with pytest.raises(ElthError, match="was never begun to the end, or its files are gone"):
            read(name)
    tracker.client.delete_run(run_id)


def test_the_index(payload: Payload, tracker: Tracker, tmp_path: Path) -> None:
    experiment_id = tracker._experiment(INDEX)
    run = tracker.client.create_run(experiment_id)
    (tmp_path / "index").write_bytes(payload.data)
    tracker.client.log_artifact(run.info.run_id, str(tmp_path / "index"))
    digest = hashlib.sha256(payload.data).hexdigest()
    place = {"run": run.info.run_id, "file": "index", "sha256": digest}
    tracker.client.set_experiment_tag(experiment_id, POINTER, json.dumps(place))
    assert tracker._listing._load() == Index()
    tracker.client.set_experiment_tag(experiment_id, POINTER, "")
    payload.check()


def test_the_outbox(payload: Payload, tracker: Tracker, tmp_path: Path) -> None:
    place = tmp_path / "outbox" / "run"
    place.mkdir(parents=True)
    (place / "entry.json").write_bytes(payload.data)
    assert publish_all(tracker, tmp_path / "outbox") == 0
    assert [path.name for path in place.iterdir()] == ["entry.bad"]
    payload.check()


# Paths


CLIMBS = ["../out", "/etc/passwd", "a/../../out", ".."]


@pytest.mark.parametrize("name", CLIMBS)
def test_an_index_names_no_file_outside_its_run(
    tracker: Tracker, tmp_path: Path, name: str
) -> None:
    experiment_id = tracker._experiment(INDEX)
    run = tracker.client.create_run(experiment_id)
    place = json.dumps({"run": run.info.run_id, "file": name, "sha256": "0" * 64})
    tracker.client.set_experiment_tag(experiment_id, POINTER, place)
    assert tracker._listing._load() == Index()
    tracker.client.set_experiment_tag(experiment_id, POINTER, "")


@pytest.mark.parametrize("name", ["../../../out", "/{}/out", "a/../../../../out"])
def test_the_index_before_is_removed_from_its_run_alone(
    tracker: Tracker, tmp_path: Path, name: str
) -> None:
    assert tracker.store.folder is not None
    inside = tracker.store.folder / "out" / "kept"
    outside = tmp_path / "out" / "kept"
    for file in (inside, outside):
        file.parent.mkdir(exist_ok=True)
        file.write_text("of a person")
    experiment_id = tracker._experiment(INDEX)
    home = tracker._listing._home(experiment_id).info.run_id
    place = {"run": home, "file": name.format(tmp_path), "sha256": "0" * 64}
    tracker.client.set_experiment_tag(experiment_id, POINTER, json.dumps(place))
    tracker._listing._save(Index(deleted=("a",)))
    assert tracker._listing._load() == Index(deleted=("a",)), "another has taken its place"
    assert inside.exists()
    assert outside.exists()
    tracker.client.set_experiment_tag(experiment_id, POINTER, "")


@pytest.mark.parametrize("name", CLIMBS)
def test_a_manifest_names_no_folder_outside_the_root(tmp_path: Path, name: str) -> None:
    part = {"classes": {"a": 1}, "images": 1, "sha256": "0" * 64}
    manifest = {"format": 1, "name": name, "classes": ["a"], "parts": {"train": part, "val": part}}
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(manifest))
    with pytest.raises(ElthError, match="is no manifest of an image folder .* cannot be called"):
        data.info(f"folder(manifest={path},size=8)")


@pytest.mark.parametrize("name", CLIMBS)
def test_an_entry_of_the_outbox_names_no_other_place(
    tracker: Tracker, tmp_path: Path, name: str
) -> None:
    place = tmp_path / "outbox" / "run"
    (place / "files").mkdir(parents=True)
    entry = {"store": str(tracker.store), "key": "a", "run_id": name, "number": 1, "ended": 1}
    entry |= {"params": {}, "tags": {}, "metrics": [], "files": {name: 1}}
    (place / "entry.json").write_text(json.dumps(entry))
    assert publish_all(tracker, tmp_path / "outbox") == 0
    assert (place / "entry.bad").exists()


@pytest.mark.parametrize("name", CLIMBS)
def test_names_of_tensors_are_no_paths(tmp_path: Path, name: str) -> None:
    """A ticket with a tensor of such a name is refused, and nothing is written anywhere."""
    path = tmp_path / "in" / "t.safetensors"
    path.parent.mkdir()
    metadata = {
        "kind": "ticket",
        "format": 1,
        "network": "resnet14(width=4)",
        "shape": {"channels": 1, "size": 8, "classes": 10},
    }
    tensors = {f"mask/{name}": torch.zeros(1, dtype=torch.uint8), f"rewind/{name}": torch.ones(1)}
    save_file(tensors, path, metadata={"elth": json.dumps(metadata)})
    with pytest.raises(ElthError, match="cannot read the ticket .* has no prunable weight"):
        Ticket.load(path)
    assert [file.name for file in tmp_path.rglob("*")] == ["in", "t.safetensors"]
