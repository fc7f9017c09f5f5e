"""Where runs are kept; known without MLflow, which takes its time to import."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from elth.errors import ElthError
from elth.files import expanded

_VARIABLE = "MLFLOW_TRACKING_URI"
_ADDRESS = r"(https?|sqlite|postgresql|mysql|mssql)(\+\w+)?:"
_WAYS = "give a directory, an MLflow server as http://HOST:5000, or a database as sqlite:///FILE"


@dataclass(frozen=True)
class Store:
    """Where MLflow keeps runs: its address and, for a directory, the place of artifacts."""

    uri: str
    folder: Path | None

    @staticmethod
    def of(place: str | Path | None, *, said_by: str = "--store") -> Store:
        """Understand ``--store``: a directory, or an address as ``http://host:5000``.

        Without one, ``MLFLOW_TRACKING_URI`` of the environment, else ``runs`` below the current
        directory.

        Args:
            place: a directory or an address.
            said_by: the option or variable that gives it, for messages.

        Raises:
            ElthError: it is no place where runs can be kept.
        """
        if not place and os.environ.get(_VARIABLE):
            place, said_by = os.environ[_VARIABLE], _VARIABLE
        text = str(place or "runs")
        reason = _refused(text)
        if reason:
            raise ElthError(f"cannot use the store '{text}': {reason} ({said_by} says this one)")
        inside = re.fullmatch(r"sqlite:///(.+)/mlflow\.db", text)
        if inside and (Path(inside[1]) / "artifacts").is_dir():  # such a directory's, by its file
            text = inside[1]
        if re.match(_ADDRESS, text, re.IGNORECASE):
            scheme, _, rest = text.partition(":")
            server = scheme.lower() in ("http", "https")
            return Store(f"{scheme.lower()}:{rest.rstrip('/') if server else rest}", None)
        folder = Path(os.path.abspath(expanded(text)))
        if set("?%") & set(str(folder)):
            raise ElthError(
                f"cannot use the store {folder}: in a database's address ? and % mean something "
                "else; give a directory without them"
            )
        if folder.is_file():
            whole = "its directory" if folder.name == "mlflow.db" else f"sqlite:///{folder}"
            raise ElthError(
                f"cannot use the store {folder}, which is a file: give {whole}, or a directory"
            )
        if not (folder / "mlflow.db").exists() and any(folder.glob("*/meta.yaml")):
            raise ElthError(
                f"{folder} holds runs in files, as MLflow kept them before it had a database, and "
                "it writes none so any more: give another directory by --store; mlflow "
                "migrate-filestore takes the old runs over into a database"
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


def _refused(text: str) -> str:
    """Why an address is none of a store, and what to do; empty if it is, or is a directory."""
    scheme = text.partition(":")[0].lower()
    if scheme in ("databricks", "databricks-uc", "uc"):
        return f"runs are not kept in Databricks; {_WAYS}"
    if scheme == "file":
        path = re.sub("^file:(//(localhost)?(?=/))?", "", text, flags=re.IGNORECASE)
        return f"MLflow keeps no runs in files any more; give the directory itself, {path}"
    if re.fullmatch(r"(\[[\da-f:]+\]|[\w.-]+):\d{1,5}(/.*)?", text, re.IGNORECASE):
        return f"it lacks a scheme; write http://{text}, or ./{text} if a directory is called so"
    if re.match(_ADDRESS, text, re.IGNORECASE):
        known = not text.lower().startswith("http") or urlsplit(text).hostname
        return "" if known else "it names no host; write http://HOST:5000"
    return _WAYS if re.match(r"[a-z][a-z0-9+.-]+:", text, re.IGNORECASE) else ""


def without_credentials(address: str) -> str:
    """An address as it may be shown: without the user and the password in it.

    A user alone is left in a database's address; in that of a server it may be a token.
    """
    parts = urlsplit(address)
    is_server = parts.scheme in ("http", "https")
    if "@" not in parts.netloc or not (is_server or parts.password):
        return address
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
