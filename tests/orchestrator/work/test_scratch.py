"""Where Ray's files lie: refused before it is started, with the variable and the way on."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from ray._common.utils import get_default_ray_temp_dir
from ray._private.utils import validate_socket_filepath

from elth.errors import ElthError
from orchestrator.plan.outside import Outside
from orchestrator.store.address import Store
from orchestrator.work import scratch
from orchestrator.work.driver import ThisMachine
from tests.orchestrator.helpers import tiny


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.skipif(sys.platform == "darwin", reason="Ray does not look at TMPDIR there")
@pytest.mark.parametrize("names", [(), ("TMPDIR",), ("RAY_TMPDIR",), ("TMPDIR", "RAY_TMPDIR")])
def test_the_folder_is_that_of_ray(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in names:
        monkeypatch.setenv(name, f"/{name}")
    place, variable = scratch.folder()
    assert str(place / "ray") == get_default_ray_temp_dir()
    assert variable == (names[-1] if names else "")


def test_a_folder_whose_name_is_too_long_for_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = len(scratch._SOCKET.format(pid=os.getpid())) + 1
    fits = "/" + "x" * (scratch._MOST_BYTES - rest - 1)
    monkeypatch.setenv("TMPDIR", fits)
    monkeypatch.setattr(os, "access", lambda *_: True)
    assert scratch.check() == f"Ray can keep its files in {fits}/ray"
    longest = f"{fits}/{scratch._SOCKET.format(pid=os.getpid())}"
    validate_socket_filepath(longest)  # Ray's own
    with pytest.raises(OSError, match="AF_UNIX"):
        validate_socket_filepath(longest + "x")
    monkeypatch.setenv("TMPDIR", fits + "xé")
    message = f"in {fits}xé (TMPDIR says so), whose name is 3 bytes too long for the sockets in it"
    with pytest.raises(ElthError, match=re.escape(message) + ": set RAY_TMPDIR to a folder with a"):
        scratch.check()
    with pytest.raises(ElthError, match="set RAY_TMPDIR"):
        ThisMachine().check(tiny("long"), Store.of(tmp_path / "runs"), [], Outside())


def test_a_folder_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path("/tmp") if os.access("/tmp", os.W_OK) else tmp_path
    monkeypatch.setattr(scratch, "folder", lambda: (place, ""))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ElthError) as caught:
        scratch.check()
    assert str(caught.value).startswith(f"Ray would keep its files in {place}/ray, and {place}")
    assert str(caught.value).endswith(
        "cannot be written: set RAY_TMPDIR to a folder of your own with a short name"
    )


def test_a_file_where_the_folder_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/dev/null")
    with pytest.raises(
        ElthError, match=r"in /dev/null/ray \(RAY_TMPDIR says so\), and /dev/null, of"
    ):
        scratch.check()


def test_a_folder_that_may_not_be_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """As /root is for others; root itself looks everywhere."""
    closed, whole = Path("/tmp/closed-to-elth"), os.stat

    def stat(path: object, *args: object, **words: object) -> os.stat_result:
        if str(path).startswith(f"{closed}/"):
            raise PermissionError(13, "Permission denied", str(path))
        return whole("/" if str(path) == str(closed) else path, *args, **words)  # type: ignore[arg-type]

    monkeypatch.setenv("TMPDIR", f"{closed}/tmp")
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(ElthError, match=rf"\(TMPDIR says so\), and {closed}, of the user root"):
        scratch.check()
