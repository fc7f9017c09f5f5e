"""Faults of what is around a run: other drivers, the tracker, the disk, a cluster."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from faults.cluster import Cluster
from faults.project import LIMIT, TOGETHER, NotHere, Project, require
from faults.server import Proxy, Server

BEGUN = (
    "select distinct run_uuid from runs join tags using (run_uuid) "
    "where status = 'RUNNING' and lifecycle_stage = 'active' and tags.key = 'elth.key'"
)
"""Runs of stages that are being computed."""


class References(Protocol):
    """What undisturbed runs leave (``cases.References``)."""

    def of(self, config: str) -> tuple[dict[str, Any], float]:
        """What that of a config leaves, and how many seconds it took."""


# Several drivers


def drivers(count: int) -> Callable[[Project], None]:
    """Give the same command so many times at once."""

    def disturb(project: Project) -> None:
        # One trial each: of ten, with their own Rays, twenty would need more memory than most have.
        project.words = ("resources.concurrent=1",)
        begun = [project.begin() for _ in range(count)]
        codes = [project.wait(driver, LIMIT * count) for driver in begun]
        require(codes == [0] * count, f"they ended with {codes}:\n{project.output()}")
        twice = {key: n for key, n in _trained(project).items() if n > 1}
        require(not twice, f"stages were trained by several: {twice}")

    return disturb


NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
"""A PID namespace of its own, as a container has; the host name stays."""

SLOWER = 1.2
"""How much longer than one driver two may take that share a grid and cannot see each other."""


def in_two_namespaces(references: References) -> Callable[[Project], None]:
    """Two drivers on one store, each in a PID namespace of its own: each stage is begun once."""

    def disturb(project: Project) -> None:
        try:
            subprocess.run(
                [*NAMESPACE, "true"], capture_output=True, text=True, encoding="utf-8", check=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            why = getattr(error, "stderr", "") or error
            raise NotHere(f"no PID namespace can be made: {str(why).strip()}") from error
        _, alone = references.of(project.config)
        project.before = NAMESPACE
        began = time.monotonic()
        first = project.begin()
        there = project.wait_for(lambda: bool(project.query(BEGUN)), first)
        require(there, f"it was over before:\n{project.output()}")
        second = project.begin()  # long enough after it to differ in more than the namespace
        codes = [project.wait(driver) for driver in (first, second)]
        took = time.monotonic() - began
        project.before = ()
        require(codes == [0, 0], f"they ended with {codes}:\n{project.output()}")
        begun = Counter(key for key, _ in project.query(_LEASES))
        twice = {key: n for key, n in begun.items() if n > 1}
        require(not twice, f"stages were begun by several: {twice}")
        print(f"       alone {alone:.1f} s, in two namespaces {took:.1f} s: {took / alone:.2f}")
        require(took <= SLOWER * alone, f"{took:.0f} s, and {alone:.0f} s alone")

    return disturb


_LEASES = (
    "select tags.value, params.value from params join tags on tags.run_uuid = params.value "
    "where params.key like 'lease/%' and tags.key = 'elth.key'"
)
"""Key and run of each lease that was ever taken."""


def stopped_for_longer_than_its_lease(project: Project) -> None:
    """Stop the process that trains, have another driver take over, and wake it up."""
    project.environment["ELTH_LEASE_SECONDS"] = "5"
    sleepy = project.begin()
    stopped, asleep = "", []

    def stop() -> bool:
        """Stop a worker in the middle of a training, and not while it writes."""
        nonlocal stopped, asleep
        workers = project.processes("ray::JobTrial") if project.query(BEGUN) else []
        for worker in workers:
            worker.suspend()
        begun = project.query(BEGUN)
        if workers and begun and not (project.path / "runs/mlflow.db-journal").exists():
            stopped, asleep = begun[0][0], workers
        else:
            for worker in workers:
                worker.resume()
        return bool(stopped)

    require(project.wait_for(stop, sleepy), "nothing was trained")
    other = project.begin()
    key = f"select value from tags where key = 'elth.key' and run_uuid = '{stopped}'"
    taken = (
        "select run_uuid from runs join tags using (run_uuid) where status = 'FINISHED' and "
        f"tags.key = 'elth.key' and tags.value = ({key})"
    )
    require(project.wait_for(lambda: bool(project.query(taken)), other), "it was not taken over")
    require(all(w.status() == "stopped" for w in asleep), "the one that slept is gone")
    for worker in asleep:
        worker.resume()
    for driver in (sleepy, other):
        code = project.wait(driver)
        require(code == 0, f"a driver ended with {code}:\n{project.output()}")
    require((stopped,) not in project.query(taken), "the one that slept has published")
    again = {(name,) for name, count in _trained(project).items() if count > 1}
    require(again <= set(project.query(key)), "more than what was stopped was done by two")


def _trained(project: Project) -> Counter[str]:
    """For each key how many runs were trained, whatever became of them."""
    found = project.query(
        "select distinct tags.value, run_uuid from tags join metrics using (run_uuid) "
        "where tags.key = 'elth.key'"
    )
    return Counter(key for key, _ in found)


# The tracker


def slow_failing_and_killed_tracker(project: Project) -> None:
    """Have an MLflow server answer after 2 s, then with errors, then not at all for a while."""
    server = Server(project.path / "runs")
    project.around.callback(server.kill)
    server.start()
    proxy = Proxy(server)
    project.around.callback(proxy.end)
    project.words = ("--store", proxy.address)
    driver = project.begin()

    def training() -> set[str]:
        found = (project.path / "runs/inflight").glob("*/*.safetensors")
        return {path.parent.name for path in found}

    def until(so: Callable[[], bool], what: str) -> None:
        require(project.wait_for(so, driver), f"it was over before {what}:\n{project.output()}")

    until(lambda: bool(training()), "a training")
    proxy.delay, slow = 2.0, proxy.answered
    until(lambda: proxy.answered > slow + 8, "8 slow answers")
    proxy.delay, first = 0.0, training()
    until(lambda: bool(training() - first), "another training")
    proxy.refuses = True
    until(lambda: proxy.refused > 8, "8 errors")
    proxy.refuses, second = False, training()
    # Killed while one is trained, and started after that has ended without it.
    until(lambda: bool(training() - second), "a third training")
    server.kill()
    outbox = project.path / "runs/outbox"
    until(lambda: bool(list(outbox.glob("*/entry.json"))), "a stage waited in the outbox")
    server.start()
    code = project.wait(driver)
    require(code == 0, f"it ended with {code}:\n{project.output()}")
    text = (project.path / "output.txt").read_text(encoding="utf-8")
    require("a finished stage waits in" in text, "nobody was told that a stage waits")
    require(not list(outbox.iterdir()), "the outbox is not empty")
    twice = {key: n for key, n in _trained(project).items() if n > 1}
    require(not twice, f"stages were trained twice: {twice}")


# The disk


def full_disk(point: Mapping[str, tuple[str, str, str]]) -> Callable[[Project], None]:
    """Fill the disk of the runs at a point of the program, and make room after its end."""

    def disturb(project: Project) -> None:
        runs = project.path / "runs"
        _small_disk(project, runs)
        variables = project.arm(point, "fill")
        code = project.run(**variables, ELTH_FILL=str(runs))
        require(not project.still_armed(), "nothing came to that point")
        text = (project.path / "output.txt").read_text(encoding="utf-8")
        said = re.search(r"No space left on device|disk is full", text)
        require(code not in (0, 130) and said is not None, f"no clear error ({code}):\n{text}")
        unclear = re.search(r"Traceback|\[SQL", text)
        require(unclear is None, f"a dump instead of a message:\n{text}")
        require("make room on that disk" in text, f"no remedy is told:\n{text}")
        (runs / "filler").unlink()

    return disturb


def _small_disk(project: Project, place: Path) -> None:
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=64m", "elth-faults", str(place)]
    done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", check=False)
    if done.returncode:
        raise NotHere(f"a small file system cannot be made: {done.stderr.strip()}")
    project.around.callback(subprocess.run, ["umount", "--lazy", str(place)], check=False)


# Another place


def moved_in_the_middle(project: Project) -> None:
    """Kill a run, move its store, look at it there, copy it, and move it back."""
    _killed_after(project, 4)
    runs, kept, copy = (project.path / name for name in ("runs", "kept", "copy"))
    runs.rename(kept)
    before = _contents(kept)
    shutil.copytree(kept, copy)
    for store in (kept, copy):
        _reads(project, str(store))
    require(_contents(kept) == before, "who only reads has written")
    code = project.wait(project.start("run", "faults.yaml", "--store", str(copy)))
    require(code == 0, f"the copy did not go on ({code}):\n{project.output()}")
    require(_contents(kept) == before, "the copy has written into the original")
    require(not runs.exists(), "something was made where the store had been")
    kept.rename(runs)


def carried(project: Project) -> None:
    """Export a grid, carry it to a server, and from there to a directory; killed on the way."""
    require(project.run() == 0, f"it failed:\n{project.output()}")
    runs, origin = project.path / "runs", project.path / "origin"
    runs.rename(origin)
    server = Server(project.path / "served")
    project.around.callback(server.kill)
    server.start()
    address, files = f"http://127.0.0.1:{server.port}", ("one.tar", "two.tar", "three.tar")
    _elth(project, "export", project.name, "-o", files[0], "--store", str(origin))
    _elth(project, "import", files[0], "--store", address)
    _elth(project, "export", project.name, "-o", files[1], "--store", address)
    words = ("import", files[1], "--store", str(runs))
    importing = project.start(*words)
    if project.wait_for(lambda: project.done() >= 2, importing):
        importing.send_signal(signal.SIGKILL)
    importing.wait()
    _elth(project, *words)
    _elth(project, "export", project.name, "-o", files[2], "--store", str(runs))
    bundles = {(project.path / name).read_bytes() for name in files}
    require(len(bundles) == 1, "what was imported is not what was exported")
    before = project.stages()
    require(project.run() == 0, f"it failed:\n{project.output()}")
    require(project.stages() == before, "what was imported was trained again")


def _elth(project: Project, *words: str) -> None:
    code = project.wait(project.start(*words))
    require(code == 0, f"elth {words[0]} ended with {code}:\n{project.output()}")


def mounted_elsewhere(project: Project) -> None:
    """Read a store at another path, where nothing can be written."""
    require(project.run() == 0, f"it failed:\n{project.output()}")
    runs, there = project.path / "runs", project.path / "mounted"
    there.mkdir()
    _mount(project, "--bind", str(runs), str(there))
    _mount(project, "-o", "remount,bind,ro", str(there))
    before = _contents(runs)
    _reads(project, str(there))
    require(_contents(runs) == before, "who only reads has written")


def away_and_back(project: Project) -> None:
    """Unmount the disk on which a server has the files of runs, and mount it again."""
    server = Server(project.path / "runs")
    project.around.callback(server.kill)
    disk, place = project.path / "disk", project.path / "runs/artifacts"
    disk.mkdir()
    place.mkdir(parents=True)
    _mount(project, "--bind", str(disk), str(place))
    server.start()
    project.words = ("--store", f"http://127.0.0.1:{server.port}")
    _killed_after(project, 4)
    before = _contents(disk)
    subprocess.run(["umount", "--lazy", str(place)], check=True)
    code = project.run()
    text = (project.path / "output.txt").read_text(encoding="utf-8")
    told = code == 2 and "Is the disk mounted" in text
    require(told, f"it was not told in one line ({code}):\n{text}")
    _mount(project, "--bind", str(disk), str(place))
    require(_contents(disk) == before, "something was written meanwhile")
    found = project.query("select count(*) from tags where key = 'elth.damaged'")
    require(found == [(0,)], "something was set aside")


def _killed_after(project: Project, count: int) -> None:
    driver = project.begin()
    there = project.wait_for(lambda: project.done() >= count, driver)
    require(there, f"it was over before:\n{project.output()}")
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    time.sleep(2)  # what the driver began ends after it


def _reads(project: Project, store: str) -> None:
    """Have the commands that read a store do so."""
    for words in (("verify",), ("status", project.name), ("report", project.name)):
        code = project.wait(project.start(*words, "--store", store))
        require(code == 0, f"elth {words[0]} ended with {code}:\n{project.output()}")
    text = (project.path / "output.txt").read_text(encoding="utf-8")
    whole = re.search(r"^(\d+) finished stages in .*: \1 whole$", text, re.M)
    require(whole is not None, f"not all is whole:\n{text}")


def _contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder with its checksum."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).digest() for path in files
    }


def _mount(project: Project, *words: str) -> None:
    done = subprocess.run(
        ["mount", *words], capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise NotHere(f"nothing can be mounted: {done.stderr.strip()}")
    if words[0] == "--bind":
        leave = ["umount", "--lazy", words[-1]]  # it may be unmounted by then
        project.around.callback(subprocess.run, leave, capture_output=True, check=False)


# The network


_OUTWARD = (
    "ip link set lo up && ip address add 198.51.100.1/32 dev lo && "
    "ip route add default via 198.51.100.1 dev lo src 198.51.100.1 && "
)
"""Gives a network of its own a way out, which leads nowhere."""


def machine_with_a_route(project: Project) -> None:
    """Run where an address leads outward, and look at what every process listens on."""
    apart = ("unshare", "--net", "sh", "-c", f'{_OUTWARD} exec "$@"', "sh")
    if subprocess.run([*apart, "ss", "-ltn"], capture_output=True, check=False).returncode:
        raise NotHere("a network of its own cannot be made (root, unshare, ip, ss)")
    project.before = apart
    driver = project.begin()
    found: set[tuple[str, str]] = set()

    def finished() -> bool:
        found.update(_listening(driver))
        return False

    project.wait_for(finished, driver)
    require(driver.returncode == 0, f"it ended with {driver.returncode}:\n{project.output()}")
    names = {name for _, name in found}
    known = {"gcs_server", "raylet", "ray::DashboardA"}  # names have 15 letters
    require(known <= names, f"not all was looked at: {sorted(names)}")
    others = [one for one in sorted(found) if not _is_loopback(one[0])]
    require(not others, f"others are listened to: {others}")


def _listening(driver: subprocess.Popen[str]) -> Iterator[tuple[str, str]]:
    """Address and process of each socket that is listened on in the network of a driver."""
    words = ["nsenter", f"--net=/proc/{driver.pid}/ns/net", "ss", "-Hltnp"]
    shown = subprocess.run(
        words, capture_output=True, text=True, encoding="utf-8", check=False
    ).stdout
    for line in shown.splitlines():
        address = line.split()[3].rpartition(":")[0].partition("%")[0].strip("[]")
        for name in re.findall(r'\("([^"]+)",pid=', line):
            yield address.removeprefix("::ffff:"), name


def _is_loopback(address: str) -> bool:
    return address != "*" and ipaddress.ip_address(address).is_loopback


# A cluster


def _on(project: Project, *cpus: int) -> Cluster:
    cluster = project.around.enter_context(Cluster(*cpus))
    project.environment |= cluster.environment
    return cluster


def killed_driver_on_a_cluster(project: Project) -> None:
    """Kill a driver whose cluster lives on; the same command goes on there."""
    cluster = _on(project, 2)
    project.words = ("--address", cluster.address)
    driver = project.begin()
    require(project.wait_for(lambda: project.done() >= 2, driver), "it was over before")
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    _nothing_held(project, cluster)


def killed_node_under_a_submitted_job(project: Project) -> None:
    """Submit to two nodes, stop, submit again, and kill one of the nodes."""
    secret = f"swordfish-{uuid.uuid4().hex}"
    cluster = _on(project, 1, 1)
    project.environment["MLFLOW_TRACKING_PASSWORD"] = secret
    require(_refusal(f"{cluster.url}/api/jobs/") == 401, "jobs are shown to who has no token")
    submit = ("submit", "faults.yaml", "--address", cluster.url, "--python", sys.executable)
    first = project.start(*submit)
    flights = project.path / "runs/inflight"
    until = project.wait_for
    there = until(lambda: bool(project.done() and [*flights.glob("*/*.safetensors")]), first)
    require(there, f"it was over before:\n{project.output()}")
    jobs = re.findall(
        r"^(faults-\w+) runs on", (project.path / "output.txt").read_text(encoding="utf-8"), re.M
    )
    stop = project.start("stop", jobs[0], "--address", cluster.url)
    codes = project.wait(stop), project.wait(first)
    require(codes == (0, 130), f"elth stop and submit ended with {codes}:\n{project.output()}")
    text = (project.path / "output.txt").read_text(encoding="utf-8")
    require("stopped; the same command goes on from what is tracked" in text, "it did not say so")
    before, tracked = project.done(), set(project.stages())
    require(bool([*flights.glob("*/*.safetensors")]), "what was begun was not kept")
    again = project.start(*submit)
    require(until(lambda: project.done() > before, again), f"it ended:\n{project.output()}")
    cluster.kill_raylet()
    code = project.wait(again)
    require(code == 0, f"the job ended with {code}:\n{project.output()}")
    require(tracked <= set(project.stages()), "what was tracked was done again")
    shown = any(secret in text for text in cluster.texts())
    require(not shown, "the tracker's password is in Ray's logs")
    _nothing_held(project, cluster)
    project.words = ("--address", cluster.address)


def _refusal(url: str) -> int:
    """With which status a request without a token is answered."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def large_and_small_on_one_cluster(project: Project) -> None:
    """Small trials fill a cluster for minutes; a job of two workers gets its turn among them."""
    cluster = _on(project, 2)
    project.environment["ELTH_TURN_SECONDS"] = "5"
    project.words = ("--address", cluster.address)
    small = Project(project.path / "small", _MANY, dict(project.environment), project.words)
    try:
        first = small.begin()
        require(small.wait_for(lambda: small.done() >= 2, first), "it was over before")
        large = project.begin()
        code = project.wait(large, 2 * LIMIT)
        require(code == 0, f"the large job ended with {code}:\n{project.output()}")
        require(first.poll() is None, "the small ones were over before the large one")
        code = small.wait(first, 2 * LIMIT)
        require(code == 0, f"the small ones ended with {code}:\n{small.output()}")
        text = (small.path / "output.txt").read_text(encoding="utf-8")
        require("waits for room on this cluster" in text, "nobody was told that they made room")
        small.state()
    finally:
        small.clear()
    _nothing_held(project, cluster)


_MANY = (
    TOGETHER.replace("name: faults2", "name: many")
    .replace("workers: 2, ", "")
    .replace("seeds: [0]", "seeds: [0, 1, 2, 3, 4, 5, 6, 7]")
    .replace("length: 4ep", "length: 32ep")
)
"""Some minutes of trials of one process."""


def _nothing_held(project: Project, cluster: Cluster) -> None:
    """Fail if a driver that has ended still holds a part of the cluster."""
    end = time.monotonic() + 60
    while True:
        doctor = project.start("doctor", "--address", cluster.address)
        project.wait(doctor)
        text = (project.path / "output.txt").read_text(encoding="utf-8")
        found = re.findall(r"^(ok|WRONG) +placement: (.*)$", text, re.M)
        require(bool(found), f"elth doctor says nothing of placement groups:\n{text}")
        if found[-1][0] == "ok":
            return
        require(time.monotonic() < end, found[-1][1])
