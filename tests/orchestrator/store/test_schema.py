"""A database of another MLflow: refused in one line that says which, and what to do."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from mlflow.store import db_migrations
from mlflow.store.db.utils import _get_alembic_config, create_sqlalchemy_engine
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase

from elth.errors import ElthError
from orchestrator.cluster.doctor import check_store
from orchestrator.store.address import Store
from orchestrator.store.tracker import Tracker

HERE = version("mlflow")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of which no more is looked at than who migrated it."""
    with _database(tmp_path) as database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("create table tags (key text, value text, run_uuid text)")
        database.execute("create table runs (run_uuid text)")
        database.execute("insert into runs values ('one')")
    return Store.of(tmp_path)


@contextlib.contextmanager
def _database(folder: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
        yield database
        database.commit()


def _set(store: Store, revision: str, *versions: str) -> None:
    assert store.folder is not None
    with _database(store.folder) as database:
        database.execute("delete from alembic_version")
        database.execute("insert into alembic_version values (?)", [revision])
        for one in versions:
            database.execute("insert into tags values ('version.mlflow', ?, '')", [one])


def _refusal(store: Store) -> str:
    """What every command says; the database stays as it is."""
    assert store.folder is not None
    before = (store.folder / "mlflow.db").read_bytes()
    told = {one.what for one in check_store(store)}
    for reading in (False, True):
        with pytest.raises(ElthError) as refused:
            Tracker(store, reading=reading)
        told.add(str(refused.value))
    (text,) = told
    assert (store.folder / "mlflow.db").read_bytes() == before
    return text


def test_of_a_newer_mlflow(store: Store) -> None:
    _set(store, "0123456789ab")
    text = (
        f"the database of the store {store} was migrated by another MLflow: its schema is revision "
        f"0123456789ab, which MLflow {HERE}, installed here, does not know, so that one is newer. "
        "Nothing is lost. Use elth in the environment that did it, or install that MLflow here; "
        "MLflow does not migrate back, but a copy of the database from before can be used. Which "
        "version it was MLflow does not write down"
    )
    assert _refusal(store) == text
    _set(store, "0123456789ab", HERE)
    assert _refusal(store) == text
    _set(store, "0123456789ab", "3.9.0", "99.10.1", "99.2", "not a version")
    hint = "; the newest by which runs in this store were made is 99.10.1"
    assert _refusal(store) == text + hint


def test_of_an_older_mlflow_is_not_migrated_unasked(store: Store) -> None:
    history = ScriptDirectory(str(Path(str(db_migrations.__file__)).parent))
    head = history.get_current_head()
    first = history.get_base()
    assert first is not None
    _set(store, first)
    assert _refusal(store) == (
        f"the database of the store {store} was made by an older MLflow: its schema is revision "
        f"{first}, and MLflow {HERE}, installed here, needs {head}. Nothing is lost. End what uses "
        f"the store, copy {store.folder}/mlflow.db, and give: mlflow db upgrade '{store.uri}'; an "
        "older MLflow cannot use it after that"
    )


def test_of_a_database_without_a_folder(store: Store) -> None:
    _set(store, "0123456789ab")
    with pytest.raises(ElthError, match=r"of the store sqlite:///.+mlflow.db was migrated by anot"):
        Tracker(Store.of(store.uri))


@pytest.mark.filterwarnings("ignore:The ..noload.. loader strategy:DeprecationWarning")
def test_what_was_being_made_when_its_process_was_killed_is_gone_on_with(tmp_path: Path) -> None:
    """MLflow makes a database revision by revision, and may be cut off after any."""
    history = ScriptDirectory(str(Path(str(db_migrations.__file__)).parent))
    revisions = [one.revision for one in history.walk_revisions()]
    for number, revision in enumerate(revisions[1::9]):
        folder = tmp_path / str(number)
        folder.mkdir()
        engine = create_sqlalchemy_engine(f"sqlite:///{folder / 'mlflow.db'}")
        InitialBase.metadata.create_all(engine)
        config = _get_alembic_config(str(engine.url))
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
        engine.dispose()
        store = Store.of(folder)
        with pytest.raises(ElthError, match="was never begun to the end: give elth run"):
            Tracker(store, reading=True)
        assert Tracker(store).stages() == []
        assert Tracker(store, reading=True).stages() == []
