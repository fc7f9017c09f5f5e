"""Whether a database is of the schema that the installed MLflow works with.

MLflow keeps in its database the revision of the schema and nothing of who made it. It refuses a
revision that is not its own, and one that lacks tables it migrates unasked, which a command that
only reads must not do. So it is looked at here first.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import sqlalchemy
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from mlflow.store import db_migrations
from mlflow.store.db.utils import create_sqlalchemy_engine

from elth.errors import ElthError
from orchestrator.store.address import Store, without_credentials

_MADE_WITH = "select distinct value from tags where key = 'version.mlflow'"
"""By the tags of our own runs (``provenance.environment``)."""


def check_schema(store: Store, *, reading: bool = False) -> None:
    """Refuse a database that another MLflow has migrated, or made.

    A server looks after its own; an empty database is made what it has to be by MLflow. Of one that
    was being made when its process was killed, MLflow goes through the rest of the revisions.

    Args:
        store: the store.
        reading: whether nothing may be made.

    Raises:
        ElthError: with what is installed here, and what is needed.
    """
    if store.uri.startswith("http") or not store.is_there:
        return
    engine = create_sqlalchemy_engine(store.uri)
    try:
        with engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
            if found is None:
                return
            history = ScriptDirectory(str(Path(str(db_migrations.__file__)).parent))
            wanted = history.get_current_head()
            if found == wanted:
                return
            is_older = found in {one.revision for one in history.walk_revisions()}
            if is_older and not _has_runs(connection):
                if not reading:
                    return
                raise ElthError(
                    f"the store {store} was never begun to the end: give elth run, which goes on "
                    "with it, or name another by --store"
                )
            text = _older(store, found, str(wanted)) if is_older else _newer(store, found)
            if not is_older:
                with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
                    text += _made_with(connection.scalars(sqlalchemy.text(_MADE_WITH)))
    finally:
        engine.dispose()
    raise ElthError(text)


def _has_runs(connection: sqlalchemy.Connection) -> bool:
    """Whether a database holds any run; what is being made has none, and not all tables."""
    if not sqlalchemy.inspect(connection).has_table("runs"):
        return False
    return connection.scalar(sqlalchemy.text("select 1 from runs limit 1")) is not None


def _older(store: Store, found: str, wanted: str) -> str:
    copy = f"copy {store.folder / 'mlflow.db'}" if store.folder else "make a backup of it"
    return (
        f"the database of the store {store} was made by an older MLflow: its schema is revision "
        f"{found}, and MLflow {version('mlflow')}, installed here, needs {wanted}. Nothing is "
        f"lost. End what uses the store, {copy}, and give: mlflow db upgrade "
        f"'{without_credentials(store.uri)}'; an older MLflow cannot use it after that"
    )


def _newer(store: Store, found: str) -> str:
    return (
        f"the database of the store {store} was migrated by another MLflow: its schema is revision "
        f"{found}, which MLflow {version('mlflow')}, installed here, does not know, so that one is "
        "newer. Nothing is lost. Use elth in the environment that did it, or install that MLflow "
        "here; MLflow does not migrate back, but a copy of the database from before can be used. "
        "Which version it was MLflow does not write down"
    )


def _made_with(versions: Iterable[str]) -> str:
    """The newest MLflow by which runs of ours were made, which is a hint."""
    known = [one for one in versions if re.fullmatch(r"\d+(\.\d+)*", one)]
    newest = max(known, key=lambda one: [int(part) for part in one.split(".")], default="")
    if not newest or newest == version("mlflow"):
        return ""
    return f"; the newest by which runs in this store were made is {newest}"
