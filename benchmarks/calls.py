"""The calls of MLflow's client, as they are answered."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from mlflow.utils import rest_utils


def watch(note: Callable[[str, float, Any], None]) -> None:
    """Have each call of this process noted from now on.

    Args:
        note: is given what was asked for, as ``POST runs/search``, the seconds that it took, and
            the answer, or the error in its place.
    """
    ask: Any = rest_utils.http_request

    def noted(host_creds: Any, endpoint: str, method: str, *args: Any, **words: Any) -> Any:
        _, of_api, rest = endpoint.rpartition("/mlflow/")
        name = f"{method} {rest if of_api else 'a file'}"
        began = time.monotonic()
        try:
            answer = ask(host_creds, endpoint, method, *args, **words)
        except Exception as error:
            note(name, time.monotonic() - began, error)
            raise
        note(name, time.monotonic() - began, answer)
        return answer

    for module in list(sys.modules.values()):
        if vars(module).get("http_request") is ask:
            vars(module)["http_request"] = noted
