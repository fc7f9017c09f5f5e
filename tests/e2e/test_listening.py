"""What a run without a cluster listens on, on a machine that others could reach."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import stat
import sys
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Project, finish

pytestmark = pytest.mark.e2e

PAIR = """\
name: pair
dataset: digits
seeds: [0]
recipe: {base: digits_resnet, length: 2it, rewind: 1it, milestones: []}
pruning: {rate: 0.5, rounds: 1}
grid:
  - {method: imp, network: resnet14(width=4)}
resources: {workers: 2}
"""


def outward() -> str:
    """The address of this machine on the way to others; empty if there is no way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.9", 9))  # nothing is sent
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def listening(pid: int) -> set[tuple[str, str]]:
    """Address and process of each socket that a process or what it has begun listens on."""
    found = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        first = psutil.Process(pid)
        for process in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                name = Path(process.cmdline()[0]).name
                for one in process.net_connections():
                    if one.status == "LISTEN":
                        found.add((one.laddr.ip.removeprefix("::ffff:"), name))
    return found


def test_a_run_from_a_folder_with_a_space_in_its_name(tmp_path: Path) -> None:
    """Ray's shell takes the path of an interpreter as it is, and would start no worker ever."""
    place = tmp_path / "an environment's (copy)"
    place.symlink_to(sys.prefix)
    project = Project(tmp_path, place / "bin" / Path(sys.executable).name)
    project.write("pair.yaml", PAIR)
    done = project.elth("run", "pair.yaml")
    assert done.returncode == 0, done.stderr
    assert "3 of 3 stages done" in done.stdout


@pytest.mark.skipif(not outward(), reason="no way leads out of this machine")
def test_a_run_listens_on_loopback_alone(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write("pair.yaml", PAIR)
    driver = project.start("run", "pair.yaml")
    found: set[tuple[str, str]] = set()

    def over() -> bool:
        found.update(listening(driver.pid))
        return len(project.done()) == 3

    project.wait_for(over, driver)
    finish(driver)
    names = {name.split()[0].partition(".")[0] for _, name in found}
    assert names >= {"gcs_server", "raylet", "ray::DashboardAgent", "ray::RayTrainWorker"}
    assert not [one for one in found if not ipaddress.ip_address(one[0]).is_loopback]
    token = Path.home() / ".ray/auth_token"
    if token.exists():
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
