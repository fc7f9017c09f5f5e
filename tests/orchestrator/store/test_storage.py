"""Where checkpoints lie: a directory, and what has no more than an object store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from elth.errors import ElthError
from orchestrator.store import storage
from orchestrator.store.address import Store
from orchestrator.store.inflight import InFlight, Stopped
from orchestrator.store.storage import Directory, ObjectStore, Storage
from tests.orchestrator.store.test_inflight import _training


class Bucket(fs.FileSystemHandler):  # type: ignore[misc]
    """A local folder that can do no more than an object store: no rename, no append."""

    def __init__(self, root: Path) -> None:
        self.inner = fs.SubTreeFileSystem(str(root), fs.LocalFileSystem())
        self.full = False

    def open_output_stream(self, path: str, metadata: Any) -> Any:
        if self.full:
            raise OSError(28, "No space left on device")
        return self.inner.open_output_stream(path, metadata=metadata)

    def move(self, src: str, dest: str) -> None:
        raise NotImplementedError("an object store has no rename")

    def open_append_stream(self, path: str, metadata: Any) -> Any:
        raise NotImplementedError("an object store has no append")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def get_type_name(self) -> str:
        return "bucket"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: Any) -> Any:
        return self.inner.get_file_info(paths)

    def get_file_info_selector(self, selector: Any) -> Any:
        return self.inner.get_file_info(selector)

    def create_dir(self, path: str, recursive: bool) -> None:
        self.inner.create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        self.inner.delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self.inner.delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        raise NotImplementedError

    def delete_file(self, path: str) -> None:
        self.inner.delete_file(path)

    def copy_file(self, src: str, dest: str) -> None:
        self.inner.copy_file(src, dest)

    def open_input_stream(self, path: str) -> Any:
        return self.inner.open_input_stream(path)

    def open_input_file(self, path: str) -> Any:
        return self.inner.open_input_file(path)


@pytest.fixture(params=["directory", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """Both kinds, each with the same promises."""
    if request.param == "directory":
        yield Directory(tmp_path)
    else:
        yield ObjectStore(fs.PyFileSystem(Bucket(tmp_path)), "some/prefix", "s3://some/prefix")


def _flight(where: Storage, **changes: Any) -> InFlight:
    return InFlight(**{"folder": where, "key": "k" * 64, "numerics": "n", "seconds": 0, **changes})


def test_the_newest_of_any_attempt_is_read_and_two_are_kept(place: Storage) -> None:
    run, first, second = _training(), _flight(place), _flight(place)
    for step, flight in ((1, first), (2, first), (3, first), (2, second)):
        run.step = step
        flight.save_if_due(run)
    assert sorted(name.partition("-")[2][:12] for name in place.names("k" * 64)) == [
        "000000000002",
        "000000000002",
        "000000000003",
    ]
    found = _flight(place).newest()
    assert found is not None
    assert found.step == 3
    assert place.folders() == ["k" * 64]
    first.clear()
    assert _flight(place).newest() is None
    first.clear()  # it may be gone already


def test_a_damaged_one_is_set_aside(place: Storage, tmp_path: Path) -> None:
    run, flight = _training(), _flight(place)
    for step in (1, 2):
        run.step = step
        flight.save_if_due(run)
    newest = max(place.names("k" * 64), key=lambda name: name.partition("-")[2])
    (path,) = tmp_path.rglob(newest)
    path.write_bytes(path.read_bytes()[:-9])
    again = _flight(place)
    found = again.newest()
    assert found is not None
    assert found.step == 1
    assert again.notes[0].startswith("a checkpoint is set aside and not used: ")
    (bad,) = tmp_path.rglob("*.bad")
    assert bad.stat().st_size == path.with_suffix(".bad").stat().st_size
    assert _flight(place).notes == []
    assert newest.replace(".safetensors", ".bad") in place.names("k" * 64)


def test_a_file_without_its_marker_is_still_being_written(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path)
    place = ObjectStore(fs.PyFileSystem(bucket), "b", "s3://b")
    flight = _flight(place)
    flight.save_if_due(_training())
    (name,) = place.names("k" * 64)
    (marker,) = tmp_path.rglob("*.whole.json")
    marker.unlink()
    assert place.names("k" * 64) == []
    assert _flight(place).newest() is None
    assert list(tmp_path.rglob(name)), "it is left alone"


def test_a_full_place_is_noted_and_training_goes_on(tmp_path: Path) -> None:
    bucket = Bucket(tmp_path)
    flight = _flight(ObjectStore(fs.PyFileSystem(bucket), "b", "s3://b"))
    bucket.full = True
    flight.save_if_due(_training())
    (note,) = flight.notes
    assert note.startswith("no checkpoint could be written, training goes on: ")
    bucket.full = False
    flight.save_if_due(_training())
    assert _flight(flight.folder).newest() is not None  # type: ignore[arg-type]


def test_the_last_checkpoint_before_the_end(place: Storage) -> None:
    """A run that is to end writes one, due or not; at other times nothing is written."""
    calm = _flight(place, seconds=1000)
    calm.save_if_due(_training())
    assert place.names("k" * 64) == []
    flight = _flight(place, seconds=1000, stop=lambda: True)
    with pytest.raises(Stopped):
        flight.save_if_due(_training())
    assert _flight(place).newest() is not None


def test_a_place_is_checked_by_writing(place: Storage, tmp_path: Path) -> None:
    place.check()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ElthError, match="cannot write the storage .*; give another by --storage"):
        Directory(file).check()
    bucket = Bucket(tmp_path)
    bucket.full = True
    with pytest.raises(ElthError, match="cannot use the storage s3://b: .*No space left"):
        ObjectStore(fs.PyFileSystem(bucket), "b", "s3://b").check()


def test_words_of_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert str(storage.of("here")) == f"{tmp_path}/here"
    assert str(storage.of(f"file://{tmp_path}/x")) == f"{tmp_path}/x"
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    found = storage.of("s3://bucket/path?region=eu-west-1")
    assert isinstance(found, ObjectStore)
    assert (found.path, found.is_local) == ("bucket/path", False)
    with pytest.raises(ElthError, match="cannot use the storage ftp://x: .*; give a directory, s3"):
        storage.of("ftp://x")
    with pytest.raises(ElthError, match="holds credentials, which logs would show") as refused:
        storage.of("s3://key:secret@bucket/path")
    assert "secret@" not in str(refused.value)
    store = Store.of("runs")
    assert storage.place(None, store) == f"{tmp_path}/runs/inflight"
    assert storage.place("there", store) == f"{tmp_path}/there"
    assert storage.place("s3://bucket/path?region=eu-west-1", store).startswith("s3://bucket/path")
    assert os.listdir(tmp_path) == [], "to name a place makes nothing"
