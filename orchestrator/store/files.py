"""The files of runs: where they lie, by the store's folder and the run's id.

A store that is a directory can be moved, copied, packed up, and seen at two paths at once. MLflow's
database holds for each run the address that its files had when it began, and MLflow's own client
follows that: to a place that is no more, or, of a copy, into the original. So all reading and
writing of files goes through here, and of a directory that address is never followed.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from elth.errors import ElthError

ARTIFACTS = "artifacts"
"""The folder of a store in which the files of all its runs lie."""

FILES = "elth.files"
"""The tag of a run that tells which files its result has, with their sizes in bytes."""

_RECORDED = re.compile(rf"/{ARTIFACTS}/([0-9a-f]{{32}})/artifacts(?:/|$)")


_KNOWN = 256


def folder_of(store: Path, run_id: str) -> Path:
    """Where the files of a run lie, of a store that is a directory.

    Raises:
        ValueError: this is the id of no run.
    """
    if not run_id.isalnum():
        raise ValueError(f"'{run_id}' is the id of no run")
    return store / ARTIFACTS / run_id / "artifacts"


def _within(name: str) -> str:
    """A name that leads nowhere else: some are read from the store, which others may have made.

    Raises:
        ValueError: it leads out of the folder of its run.
    """
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"'{name}' leads out of the folder of its run")
    return name


def relocated(address: str, store: Path) -> str:
    """An address that a database recorded, as one in the store's folder as it is now.

    Example:
        >>> relocated(f"file:///old/runs/artifacts/{'0f' * 16}/artifacts/result", Path("/new"))
        'file:///new/artifacts/0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f/artifacts/result'
    """
    found = _RECORDED.search(address)
    if found is None:
        return address
    rest = address[found.end() :]
    return folder_of(store, found[1]).as_uri() + (f"/{rest}" if rest else "")


TRAINED = "trained.safetensors"
"""The file of a result with the trained weights."""


def told_by(tags: Mapping[str, str]) -> dict[str, int] | None:
    """The files of a result and their sizes in bytes, as its run tells; None if it does not."""
    with contextlib.suppress(ValueError, AttributeError, TypeError):
        found = json.loads(tags[FILES]) if FILES in tags else None
        return None if found is None else {str(name): int(size) for name, size in found.items()}
    return None


def bytes_of(place: Path) -> int:
    """Bytes of all files below a folder; links are not followed, what vanishes is not counted."""
    total = 0
    for path in place.rglob("*"):
        with contextlib.suppress(OSError):
            found = path.lstat()
            total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total


class Files:
    """The files of a store's runs; names are relative to a run's folder, with ``/``."""

    def __init__(self, client: MlflowClient, folder: Path | None) -> None:
        """Prepare; nothing is asked of the store yet.

        Args:
            client: of the store.
            folder: the store's, if it is a directory; else MLflow says where files lie.
        """
        self._client = client
        self._folder = folder
        self._addresses: dict[str, str] = {}
        """Where a server has the files of the runs that were asked for last."""

    def know(self, run: Run) -> None:
        """Keep where the files of a run lie, so that the server need not be asked for it."""
        self._keep(str(run.info.run_id), run)

    def _keep(self, run_id: str, run: Run) -> None:
        while len(self._addresses) >= _KNOWN:
            self._addresses.pop(next(iter(self._addresses)), None)  # of several threads
        self._addresses[run_id] = str(run.info.artifact_uri)

    def _repository(self, run_id: str) -> ArtifactRepository:
        if self._folder is not None:
            address = folder_of(self._folder, run_id).as_uri()
        else:
            if run_id not in self._addresses:
                self._keep(run_id, self._client.get_run(run_id))
            address = self._addresses[run_id]
            uri = self._client.tracking_uri
            if uri.startswith("http") and (address.startswith("file:") or ":/" not in address):
                raise ElthError(
                    f"the server {uri} has the files of its runs in {address}, which is a folder "
                    "of its own machine and is not handed out: start it with "
                    "--artifacts-destination, on a new database; or name that store's directory by "
                    "--store"
                )
        return get_artifact_repository(address, self._client.tracking_uri)

    def sizes(self, run_id: str, folder: str = "") -> dict[str, int]:
        """The files in a folder of a run, by name, and their sizes in bytes; none if it is not.

        Raises:
            MlflowException, OSError: it cannot be told.
        """
        found = self._repository(run_id).list_artifacts(_within(folder) or None)
        return {one.path.rpartition("/")[2]: int(one.file_size or 0) for one in found}

    def size(self, run_id: str) -> int:
        """Bytes of all files of a run.

        Raises:
            MlflowException, OSError: it cannot be told.
        """
        if self._folder is not None:
            return bytes_of(folder_of(self._folder, run_id).parent)
        return sum(self.tree(run_id).values())

    def tree(self, run_id: str) -> dict[str, int]:
        """All files of a run by their whole names, and their sizes in bytes.

        Raises:
            MlflowException, OSError: it cannot be told.
        """
        files = self._repository(run_id)
        found: dict[str, int] = {}
        todo: list[str | None] = [None]
        while todo:
            for one in files.list_artifacts(todo.pop()):
                if one.is_dir:
                    todo.append(one.path)
                else:
                    found[one.path] = int(one.file_size or 0)
        return found

    @contextlib.contextmanager
    def fetched(self, run_id: str, name: str) -> Iterator[Path]:
        """A file or a folder of a run, until the block ends: in place, or as a copy.

        Raises:
            FileNotFoundError: it is not there.
            MlflowException, OSError: it is not to be had, for another reason.
        """
        files = self._repository(run_id)
        if self._folder is not None:
            place = folder_of(self._folder, run_id) / _within(name)
            place.stat()
            yield place
            return
        with tempfile.TemporaryDirectory(prefix="elth-") as here:
            try:
                path = files.download_artifacts(_within(name), here)
            except (MlflowException, OSError) as error:
                parent, _, last = name.rpartition("/")
                there = self.sizes(run_id, parent)
                # For MLflow a file that is not there is an error of the server like any other.
                if (last not in there) if last else not there:
                    raise FileNotFoundError(f"run {run_id} has no {name}") from error
                raise
            yield Path(path)

    def read(self, run_id: str, name: str) -> bytes:
        """The content of a file; as ``fetched``."""
        with self.fetched(run_id, name) as path:
            return path.read_bytes()

    def write(self, run_id: str, name: str, content: bytes) -> None:
        """Write a file, in the place of one of this name."""
        parent, _, last = _within(name).rpartition("/")
        with tempfile.TemporaryDirectory(prefix="elth-") as here:
            path = Path(here) / last
            path.write_bytes(content)
            self._repository(run_id).log_artifact(str(path), parent or None)

    def add(self, run_id: str, path: Path, folder: str = "") -> None:
        """Add a file, or what a folder holds, to a run, or to a folder of it."""
        files = self._repository(run_id)
        folder = _within(folder)
        if path.is_dir():
            files.log_artifacts(str(path), folder or None)
        else:
            files.log_artifact(str(path), folder or None)

    def remove(self, run_id: str, name: str) -> None:
        """Remove a file."""
        self._repository(run_id).delete_artifacts(_within(name))

    def remove_all(self, run_id: str) -> None:
        """Remove all files of a run.

        Raises:
            MlflowException, OSError: they cannot be removed.
        """
        if self._folder is not None:
            place = folder_of(self._folder, run_id).parent
            if place.is_dir():
                shutil.rmtree(place)
            return
        self._repository(run_id).delete_artifacts()
