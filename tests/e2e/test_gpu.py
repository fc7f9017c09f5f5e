"""Whole runs on GPUs: trials that share one, and workers that train one network together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from elth.data import load as load_dataset
from tests.e2e import parallel_worker as worker
from tests.e2e.conftest import SHARED, Project

pytestmark = [pytest.mark.e2e, pytest.mark.gpu]


def test_trials_share_a_gpu(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write("shared.yaml", SHARED.replace("{concurrent: 1}", "{gpus: 0.25}"))
    for _ in range(2):
        done = project.elth("run", "shared.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "6 of 6 stages done" in done.stdout
    cells = json.loads(project.report("shared", "--provenance"))
    classes = {name for cell in cells for name in cell["numerics"]}
    assert classes
    assert not any(name.startswith("cpu") for name in classes)


@pytest.mark.gpu(2)
def test_a_job_of_two_gpus_runs_to_its_report(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.write("shared.yaml", SHARED.replace("{concurrent: 1}", "{gpus: 1, workers: 2}"))
    done = project.elth("run", "shared.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6 stages done" in done.stdout


@pytest.mark.gpu(2)
def test_two_gpus_compute_what_one_processor_does(tmp_path: Path) -> None:
    path, root = tmp_path / "told.json", Path(__file__).parents[2]
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ended = subprocess.run(
        [sys.executable, *words, str(Path(worker.__file__)), str(path)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=480,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    told = json.loads(path.read_text())
    data = load_dataset("digits")
    for case, (spec, fields, steps) in worker.CASES.items():
        run = worker.training(spec, data, worker.recipe(**fields), None, stop=steps)
        assert told[case] == pytest.approx(worker.losses(run), rel=1e-9)
    first, second, gone_on = told["the same twice, and gone on with"]
    assert first == second == gone_on
