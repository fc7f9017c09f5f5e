"""The files of ``deploy/``: read as their programs would, as far as that goes without a cluster."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml

from orchestrator.experiment.reading import load

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
FILES = sorted(path for path in DEPLOY.iterdir() if path.is_file())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_says_that_it_was_not_run_on_a_real_cluster(path: Path) -> None:
    head = path.read_text(encoding="utf-8").split("\n\n")[0]
    lines = [line for line in head.splitlines() if line.startswith("#")]
    assert re.search("Not (run on|built)", " ".join(lines))


def test_ray_takes_the_cluster() -> None:
    config = yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text(encoding="utf-8"))
    schema = json.loads(
        (Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text(encoding="utf-8")
    )
    jsonschema.validate(config, schema)
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        (command,) = config[name]
        assert "RAY_AUTH_MODE=token" in command
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][0]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**config, "max_wrokers": 1}, schema)


# Kubernetes

KUBERNETES = [
    one
    for one in yaml.safe_load_all((DEPLOY / "kuberay.yaml").read_text(encoding="utf-8"))
    if one is not None
]


def _kind(kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in KUBERNETES if one["kind"] == kind}


def _pods() -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Labels and specification of every pod."""
    for kind in ("StatefulSet", "Deployment"):
        for one in _kind(kind).values():
            template = one["spec"]["template"]
            assert one["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
            yield template["metadata"]["labels"], template["spec"]
    ray_cluster = _kind("RayJob")["elth"]["spec"]["rayClusterSpec"]
    for group in (ray_cluster["headGroupSpec"], *ray_cluster["workerGroupSpecs"]):
        yield {}, group["template"]["spec"]


def test_the_kinds() -> None:
    assert {one["kind"]: one["apiVersion"] for one in KUBERNETES} == {
        "Service": "v1",
        "StatefulSet": "apps/v1",
        "Deployment": "apps/v1",
        "RayJob": "ray.io/v1",
        "PersistentVolumeClaim": "v1",
    }


KUBERNETES_VERSION = "1.33"


def _takes(one: dict[str, Any]) -> None:
    kubernetes_validate.validate(one, KUBERNETES_VERSION, strict=True)


def test_kubernetes_takes_its_objects() -> None:
    own = [one for one in KUBERNETES if not one["apiVersion"].startswith("ray.io/")]
    for one in own:
        _takes(one)
    for _, pod in _pods():
        _takes({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one"}, "spec": pod})
    wrong = {**own[0], "spec": {**own[0]["spec"], "clusterIp": "None"}}
    with pytest.raises(kubernetes_validate.ValidationError):
        _takes(wrong)


def test_services_lead_to_pods() -> None:
    labels = [found for found, _ in _pods()]
    for name, service in _kind("Service").items():
        assert service["spec"]["selector"] in labels
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP", "none is open to outside"
        assert name in (DEPLOY / "kuberay.yaml").read_text(encoding="utf-8").replace(
            f"name: {name}", ""
        )


def test_volumes_are_there() -> None:
    claims = set(_kind("PersistentVolumeClaim"))
    for _, pod in _pods():
        volumes = {one["name"]: one for one in pod.get("volumes", ())}
        for container in pod["containers"]:
            for mount in container.get("volumeMounts", ()):
                assert mount["name"] in {*volumes, "database"}
        for one in volumes.values():
            assert one["persistentVolumeClaim"]["claimName"] in claims


def test_no_password_stands_in_the_file() -> None:
    created = set(
        re.findall(
            r"create secret generic (\S+)", (DEPLOY / "kuberay.yaml").read_text(encoding="utf-8")
        )
    )
    used = set()
    for _, pod in _pods():
        for container in pod["containers"]:
            for variable in container.get("env", ()):
                name = variable["name"]
                secret = re.search("PASSWORD|SECRET|TOKEN|ADMIN|ACCESS_KEY|USERNAME", name)
                assert bool(secret) == ("valueFrom" in variable), name
                if secret:
                    used.add(variable["valueFrom"]["secretKeyRef"]["name"])
    auth = _kind("RayJob")["elth"]["spec"]["rayClusterSpec"]["authOptions"]
    assert auth["mode"] == "token"
    assert used | {auth["secretName"]} == created


def test_the_job_is_one_that_elth_takes() -> None:
    words = _kind("RayJob")["elth"]["spec"]["entrypoint"].split()
    assert words[:4] == ["python", "-m", "orchestrator.cli", "run"]
    config = ROOT / words[4].removeprefix("/opt/elth/")
    overrides = [word for word in words[5:] if re.fullmatch(r"[a-z.]+=\S+", word)]
    assert load(config, overrides).resources.gpus == 0.25
    version = _kind("RayJob")["elth"]["spec"]["rayClusterSpec"]["rayVersion"]
    assert version == ray.__version__


# SLURM


def test_bash_and_shellcheck_take_the_script() -> None:
    script = str(DEPLOY / "slurm.sh")
    subprocess.run(["bash", "-n", script], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", script], check=True)


@pytest.fixture
def site(tmp_path: Path) -> dict[str, str]:
    """A machine of a SLURM cluster, with stand-ins for its commands, for Ray and for elth."""
    commands = {
        "scontrol": '[ "$1" = show ] && echo node7 && exit\necho "scontrol $*" >>"$LOG"',
        "srun": 'echo "srun $*" >>"$LOG"; while [ "$1" != ray ]; do shift; done; exec "$@"',
        "ray": 'echo "ray $*" >>"$LOG"; while [ "$1" != -- ]; do shift; done; shift; "$@"',
        "elth": 'echo "elth $*" >>"$LOG"\n'
        '[ "$END" = now ] && exit "$CODE"\n'
        "trap 'exit 130' USR1; touch \"$READY\"; while true; do sleep 0.05; done",
    }
    for name, text in commands.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "token").write_text("token", encoding="utf-8")
    return {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "ELTH_BIN": str(tmp_path),
        "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"),
        "LOG": str(tmp_path / "log"),
        "READY": str(tmp_path / "ready"),
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_ID": "1234",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_JOB_NODELIST": "node[7-8]",
        "END": "now",
        "CODE": "0",
    }


WORDS = ["bash", str(DEPLOY / "slurm.sh"), "c.yaml", "seeds=[0, 1]", "--store", "/s"]


@pytest.mark.parametrize("code", [0, 3])
def test_a_script_that_ends_by_itself(site: dict[str, str], code: int) -> None:
    done = subprocess.run(WORDS, env={**site, "CODE": str(code)}, timeout=30, check=False)
    assert done.returncode == code
    log = Path(site["LOG"]).read_text(encoding="utf-8")
    assert "elth run c.yaml seeds=[0, 1] --store /s --address auto\n" in log
    assert "ray symmetric-run --address node7:21234 --min-nodes 2 " in log
    assert "requeue" not in log


def test_the_warning_signal_ends_elth_and_requeues(site: dict[str, str]) -> None:
    import signal
    import time

    script = subprocess.Popen(WORDS, env={**site, "END": "later"}, start_new_session=True)
    end = time.monotonic() + 30
    while not Path(site["READY"]).exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    script.send_signal(signal.SIGUSR1)  # to the batch shell alone, as --signal=B: does
    assert script.wait(30) == 0
    assert Path(site["LOG"]).read_text(encoding="utf-8").endswith("scontrol requeue 1234\n")
