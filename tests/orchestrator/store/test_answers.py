"""What an error of the store means: each row is one that a real server, database or proxy gave."""

from __future__ import annotations

import json

import pytest
import requests
from mlflow.exceptions import MlflowException, RestException
from mlflow.utils.rest_utils import verify_rest_response
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError, TimeoutError

from orchestrator.store.answers import may_help

AFTER = " [SQL: INSERT INTO tags (key) VALUES (%(key)s)] [parameters: {'key': 'deadlock is full'}]"
"""The statement and values that SQLAlchemy puts behind; they may hold any words."""

BUSY = [
    # SQLAlchemy, on the server
    "QueuePool limit of size 5 overflow 10 reached, connection timed out, timeout 30.00",
    "This Connection is closed",
    "Can't reconnect until invalid transaction is rolled back.",
    "This Session's transaction has been rolled back due to a previous exception during flush.",
    "UPDATE statement on table 'tags' expected to update 1 row(s); 0 were matched.",
    # PostgreSQL 15, psycopg2 and psycopg
    '(psycopg2.errors.UniqueViolation) duplicate key value violates unique constraint "tag_pk"',
    "(psycopg2.errors.InFailedSqlTransaction) current transaction is aborted, commands ignored "
    "until end of transaction block",
    "(psycopg.errors.ReadOnlySqlTransaction) cannot execute INSERT in a read-only transaction",
    "(psycopg2.InterfaceError) connection already closed",
    # MariaDB 10.11 and MySQL, pymysql
    "(pymysql.err.IntegrityError) (1062, \"Duplicate entry 'a-b' for key 'PRIMARY'\")",
    "(pymysql.err.InterfaceError) (0, '')",
    "(pymysql.err.InternalError) (1205, 'Lock wait timeout exceeded; try restarting transaction')",
    # SQLite
    "(sqlite3.IntegrityError) UNIQUE constraint failed: tags.key, tags.run_uuid",
]
"""Under ``BAD_REQUEST``."""

REFUSED = [
    "(psycopg2.errors.StringDataRightTruncation) value too long for type character varying(5)",
    '(psycopg2.errors.UndefinedTable) relation "runs" does not exist',
    '(psycopg2.errors.ForeignKeyViolation) insert or update on table "tags" violates foreign key '
    'constraint "tags_run_uuid_fkey"',
    "(pymysql.err.DataError) (1406, \"Data too long for column 'b' at row 1\")",
    "(pymysql.err.ProgrammingError) (1146, \"Table 'mlflow.runs' doesn't exist\")",
    "(sqlite3.IntegrityError) FOREIGN KEY constraint failed",
    "Parameter 'x' is too long",
]
"""Under ``BAD_REQUEST``."""

LATER = [
    "(psycopg2.errors.DeadlockDetected) deadlock detected DETAIL: Process 1 waits for ShareLock",
    "(psycopg2.errors.LockNotAvailable) canceling statement due to lock timeout",
    "(psycopg2.errors.QueryCanceled) canceling statement due to statement timeout",
    "(psycopg2.OperationalError) server closed the connection unexpectedly",
    "(psycopg.errors.AdminShutdown) terminating connection due to administrator command",
    "(psycopg2.errors.SerializationFailure) could not serialize access due to concurrent update",
    '(psycopg2.OperationalError) connection to server at "db", port 5432 failed: FATAL: sorry, '
    "too many clients already",
    '(psycopg2.OperationalError) connection to server at "db", port 5432 failed: FATAL: the '
    "database system is starting up",
    "(pymysql.err.OperationalError) (1213, 'Deadlock found when trying to get lock')",
    "(pymysql.err.OperationalError) (1969, 'Query execution was interrupted')",
    "(pymysql.err.OperationalError) (2013, 'Lost connection to MySQL server during query')",
    "(pymysql.err.OperationalError) (2003, \"Can't connect to MySQL server on 'db'\")",
    "(sqlite3.OperationalError) database is locked",
]
"""Operational errors, which MLflow calls ``TEMPORARILY_UNAVAILABLE``."""

STAYS = [
    "(sqlite3.OperationalError) database or disk is full",
    "(sqlite3.OperationalError) attempt to write a readonly database",
    "(sqlite3.OperationalError) no such table: runs",
    "(sqlite3.OperationalError) table runs has no column named x",
    "(psycopg2.errors.DiskFull) could not extend file: No space left on device",
    '(psycopg2.OperationalError) FATAL: password authentication failed for user "mlflow"',
    '(psycopg2.OperationalError) FATAL: database "nodb" does not exist',
    '(psycopg2.OperationalError) FATAL: role "nobody" does not exist',
    "(pymysql.err.OperationalError) (1045, \"Access denied for user 'mlflow'@'localhost'\")",
    "(pymysql.err.OperationalError) (1049, \"Unknown database 'nodb'\")",
    "(pymysql.err.OperationalError) (1054, \"Unknown column 'zz' in 'SELECT'\")",
    "(pymysql.err.OperationalError) (1114, \"The table 'metrics' is full\")",
]
"""Operational errors, too."""


def _by_server(code: str, text: str) -> RestException:
    return RestException({"error_code": code, "message": text + AFTER})


@pytest.mark.parametrize("text", BUSY)
def test_a_busy_database_is_no_bad_request(text: str) -> None:
    assert may_help(_by_server("BAD_REQUEST", text))


@pytest.mark.parametrize("text", REFUSED)
def test_a_bad_request_is_one_for_ever(text: str) -> None:
    assert not may_help(_by_server("BAD_REQUEST", text))
    assert not may_help(_by_server("INVALID_PARAMETER_VALUE", text))


@pytest.mark.parametrize("text", LATER)
def test_a_database_that_is_away_or_locked_comes_back(text: str) -> None:
    assert may_help(_by_server("TEMPORARILY_UNAVAILABLE", text))


@pytest.mark.parametrize("text", STAYS)
def test_what_a_person_has_to_mend_is_told_at_once(text: str) -> None:
    assert not may_help(_by_server("TEMPORARILY_UNAVAILABLE", text))


@pytest.mark.parametrize(
    ("error", "later"),
    [
        (OperationalError("SELECT 1", {}, Exception("Connection refused")), True),
        (OperationalError("SELECT 1", {}, Exception('database "x" does not exist')), False),
        (TimeoutError("QueuePool limit of size 5 overflow 10 reached, connection timed out"), True),
        (IntegrityError("SELECT 1", {}, Exception("FOREIGN KEY constraint failed")), False),
    ],
)
def test_a_database_without_a_server(error: SQLAlchemyError, later: bool) -> None:
    assert may_help(error) is later


@pytest.mark.parametrize(
    ("status", "later"),
    [
        *((status, True) for status in (408, 425, 429, 499, 500, 502, 503, 504, 520, 522, 529)),
        *((status, False) for status in (400, 401, 403, 404, 409, 413, 414, 431, 501)),
    ],
)
def test_a_proxy_in_between_answers_by_itself(status: int, later: bool) -> None:
    """For the client of MLflow's interface, and for that of its artifacts."""
    answer = _answer(status, "<html>nginx</html>")
    with pytest.raises(MlflowException) as raised:
        verify_rest_response(answer, "/api/2.0/mlflow/runs/log-batch")
    assert may_help(raised.value) is later
    if status != 499:
        assert may_help(requests.HTTPError("x", response=answer)) is later


@pytest.mark.parametrize("body", ["", "<html>sign in</html>", json.dumps({"run": {}})[:5]])
def test_an_answer_that_was_cut_off(body: str) -> None:
    with pytest.raises(MlflowException) as raised:
        verify_rest_response(_answer(200, body or "{"), "/api/2.0/mlflow/runs/get")
    assert may_help(raised.value)


def test_what_is_no_answer_at_all() -> None:
    assert may_help(MlflowException("API request to http://t/x failed with exception Connection"))
    assert may_help(requests.ConnectionError("refused"))
    assert may_help(requests.exceptions.ChunkedEncodingError("reset by peer"))
    assert not may_help(ValueError("deadlock"))


def _answer(status: int, body: str) -> requests.Response:
    answer = requests.Response()
    answer.status_code = status
    answer._content = body.encode()
    return answer
