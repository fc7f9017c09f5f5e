"""What an error of the store means: a busy one answers later, a wrong request is wrong for ever.

MLflow hands on what its database said. Of SQLAlchemy's errors it calls ``OperationalError``
temporarily unavailable, and all others a bad request: a pool of connections that is full, a
connection that was cut, two that wrote one row at once. On the other hand a disk that is full or a
table that is missing is an ``OperationalError``, too. So errors of a database are told by their
words (docs/reliability.md has the table), without the statement and the values that follow them.
"""

from __future__ import annotations

import re

import requests
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError, SQLAlchemyError

_LATER = (
    "INTERNAL_ERROR",
    "TEMPORARILY_UNAVAILABLE",
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED",
    "CANCELLED",  # a proxy says so of a request that took too long
)
"""Codes of errors that asking again may mend, but for ``_STAYS``."""

_STAYS = re.compile(
    r"""
    is\ full | no\ space\ left | disk\ quota                                   # of any database
    | readonly | read-only | unable\ to\ open | malformed | not\ a\ database   # SQLite
    | no\ such\ (table|column) | has\ no\ column
    | password\ authentication | no\ pg_hba | (database|role)\ "[^"]*"\ does\ not\ exist
    | access\ denied\ for | unknown\ (database|column)                         # MySQL
    | error\ code\ (413|414|431)\ !=                                           # a proxy's limits
    """,
    re.VERBOSE,
)
"""Under the same codes: what stays as it is until a person does something."""

_BUSY = re.compile(
    r"""
    queuepool\ limit | connection\ timed\ out                      # no connection was free in time
    | interfaceerror | connection\ (already\ closed|is\ closed|was\ closed|not\ available)
    | can't\ reconnect\ until | has\ been\ rolled\ back            # a session that was cut off
    | current\ transaction\ is\ aborted | infailedsqltransaction
    | deadlock | lock\ wait\ timeout | could\ not\ (serialize|obtain\ lock)
    | statement\ timeout | querycanceled | adminshutdown | recovery
    | in\ a\ read-only\ transaction                               # of a standby, until it is none
    | unique\ ?(violation|constraint\ failed) | duplicate\ (key\ value|entry)
    | expected\ to\ (update|delete)\ \d+\ row                      # another was quicker
    | server\ has\ gone\ away | lost\ connection
    """,
    re.VERBOSE,
)
"""Under ``BAD_REQUEST``: what is nobody's mistake. Two writers of one row may both say so; the one
that asks again finds it written."""


def may_help(error: BaseException) -> bool:
    """Whether asking the store again may help, after an error of MLflow, its client or files."""
    if isinstance(error, requests.RequestException):
        status = error.response.status_code if error.response is not None else 503
        return status not in (501, 505, 507) and (status >= 500 or status in (408, 425, 429))
    if isinstance(error, MlflowException):
        code = error.error_code
    elif isinstance(error, SQLAlchemyError):  # of a database that is opened without a server
        is_later = isinstance(error, OperationalError)
        code = "TEMPORARILY_UNAVAILABLE" if is_later else "BAD_REQUEST"
    else:
        return False
    said = _said(error)
    if code in _LATER:
        return not _STAYS.search(said)
    return code == "BAD_REQUEST" and bool(_BUSY.search(said))


def _said(error: Exception) -> str:
    """What was said, without the statement and its values, which may hold any words."""
    return re.split(r"\[SQL:|\[parameters:", str(error))[0].lower()
