"""Where runs are kept; known without MLflow, which takes its time to import."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from elth.errors import ElthError


@dataclass(frozen=True)
class Store:
    """Where MLflow keeps runs: its address and, for a directory, the place of artifacts."""

    uri: str
    folder: Path | None

    @staticmethod
    def of(place: str | Path | None) -> Store:
        """Understand ``--store``: a directory, or an address as ``http://host:5000``.

        Without one, ``MLFLOW_TRACKING_URI`` of the environment, else ``runs`` below the current
        directory.
        """
        place = str(place or os.environ.get("MLFLOW_TRACKING_URI") or "runs")
        inside = re.fullmatch(r"sqlite:///(.+)/mlflow\.db", place)
        if inside and (Path(inside[1]) / "artifacts").is_dir():  # such a directory's, by its file
            place = inside[1]
        if re.match(r"^(https?|sqlite|postgresql|mysql|mssql)(\+\w+)?:", place):
            return Store(place, None)
        if re.match(r"^[a-z][a-z0-9+.-]+:", place):
            raise ElthError(
                f"cannot use the store '{place}': give a directory, an MLflow server as "
                "http://host:5000, or a database as sqlite:///file"
            )
        folder = Path(os.path.abspath(place))
        if set("?%") & set(str(folder)):
            raise ElthError(
                f"cannot use the store {folder}: in a database's address ? and % mean something "
                "else; give a directory without them"
            )
        return Store(f"sqlite:///{folder / 'mlflow.db'}", folder)

    def __str__(self) -> str:
        return str(self.folder) if self.folder else without_credentials(self.uri)

    @property
    def inflight(self) -> Path:
        """Where checkpoints of stages lie that are being trained: beside the runs.

        Of a store that is no directory, in ``runs`` below the current directory.
        """
        return (self.folder or Path("runs").absolute()) / "inflight"

    @property
    def outbox(self) -> Path:
        """Where finished stages wait while MLflow is away."""
        return self.inflight.with_name("outbox")

    @property
    def is_there(self) -> bool:
        """Whether it has been used before; a server is taken to be there."""
        file = self.uri.removeprefix("sqlite:///")
        return file == self.uri or Path(file.partition("?")[0]).exists()


def without_credentials(address: str) -> str:
    """An address as it may be shown: without the user and the password in it.

    A user alone is left in a database's address; in that of a server it may be a token.
    """
    parts = urlsplit(address)
    is_server = parts.scheme in ("http", "https")
    if "@" not in parts.netloc or not (is_server or parts.password):
        return address
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
