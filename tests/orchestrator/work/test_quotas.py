"""Cores and memory, within the quotas of containers of either version of cgroups."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from orchestrator.work.quotas import cores, memory

GB = 10**9


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 cores, of which all may be used, and 32 of 64 GB free."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    host = SimpleNamespace(total=64 * GB, available=32 * GB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: host)


def _root(folder: Path, group: str, files: dict[str, str]) -> Path:
    """A root with what this process's cgroup is, and files of cgroups."""
    for name, text in {"proc/self/cgroup": group, **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n", encoding="utf-8")
    return folder


def test_without_cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (cores(tmp_path).count, cores(tmp_path).told) == (64, "64 of this machine")
    assert (memory(tmp_path).free, memory(tmp_path).told) == (32 * GB, "32.0 GB free")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 5, 7})
    assert (cores(tmp_path).count, cores(tmp_path).told) == (3, "bound to 3 of 64")


@pytest.mark.parametrize(
    ("group", "files", "count", "told"),
    [
        ("0::/", {"cpu.max": "200000 100000"}, 2, "cgroup quota of 2.0"),
        ("0::/", {"cpu.max": "250000 100000"}, 2, "cgroup quota of 2.5"),
        ("0::/", {"cpu.max": "50000 100000"}, 1, "cgroup quota of 0.5"),
        ("0::/", {"cpu.max": "max 100000"}, 64, "64 of this machine"),
        ("0::/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3, "quota of 3.0"),
        ("0::/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "100000 100000"}, 1, "of 1.0"),
        ("0::/../x", {"cpu.max": "400000 100000"}, 4, "cgroup quota of 4.0"),
        (
            "4:cpu,cpuacct:/docker/1",
            {"cpu/cpu.cfs_quota_us": "150000", "cpu/cpu.cfs_period_us": "100000"},
            1,
            "cgroup quota of 1.5",
        ),
        (
            "4:cpu,cpuacct:/",
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            64,
            "64 of this machine",
        ),
        ("4:cpuset:/", {"cpuset/cpu.cfs_quota_us": "1"}, 64, "64 of this machine"),
    ],
)
def test_cores(tmp_path: Path, group: str, files: dict[str, str], count: int, told: str) -> None:
    root = _root(tmp_path, group, {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    assert cores(root).count == count
    assert told in cores(root).told


def test_memory_of_version_2(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/a"
    files = {
        f"{folder}/memory.max": str(4 * GB),
        f"{folder}/memory.current": str(3 * GB),
        f"{folder}/memory.stat": f"anon 1\ninactive_file {GB}\nactive_file 5",
        f"{folder}/b/memory.max": "max",
        f"{folder}/b/memory.current": "1",
        f"{folder}/b/memory.stat": "",
    }
    found = memory(_root(tmp_path, "0::/a/b", files))
    assert found.free == 2 * GB  # what is cached can be dropped
    assert found.told == "2.0 GB free within a cgroup limit of 4.0 GB"


def test_memory_of_version_1(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory"
    files = {
        f"{folder}/x/memory.limit_in_bytes": str(8 * GB),
        f"{folder}/x/memory.usage_in_bytes": str(9 * GB),
        f"{folder}/x/memory.stat": "cache 0",
        f"{folder}/memory.limit_in_bytes": str(2**63 - 4096),
        f"{folder}/memory.usage_in_bytes": str(40 * GB),
        f"{folder}/memory.stat": "cache 0",
    }
    found = memory(_root(tmp_path, "4:memory:/x\n0::/", files))
    assert (found.free, found.told) == (0, "0.0 GB free within a cgroup limit of 8.0 GB")


def test_this_machine() -> None:
    assert cores().count >= 1
    assert memory().free > 0
