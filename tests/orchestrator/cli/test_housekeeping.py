"""``elth grids``, ``rm`` and ``gc``: what a store holds, and what goes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import pytest
from rich.console import Console

from elth.errors import ElthError
from orchestrator.cli import housekeeping
from orchestrator.plan.costs import size_of
from orchestrator.store import leftovers
from orchestrator.store.address import Store
from orchestrator.store.tracker import Tracker
from tests.orchestrator.cli.helpers import Elth, refused
from tests.orchestrator.helpers import (
    Finished,
    artifact,
    begin,
    chain,
    rewind_result,
    round_result,
    tiny,
)


def test_sizes_for_people() -> None:
    assert size_of(0) == "0 kB"
    assert size_of(1234) == "1.23 kB"
    assert size_of(19_900_000) == "19.9 MB"
    assert size_of(5e9) == "5 GB"
    assert size_of(5e12) == "5 TB"


def test_grids_lists_what_a_store_holds(elth: Elth, finished: Finished, tmp_path: Path) -> None:
    done = elth("grids", "--store", finished.store)
    assert (done.code, done.err) == (0, "")
    assert re.search(r"│ done +│ 24 of 24 │ +0 │ +0 │ .* [kM]B │ .* ago", done.out)
    found = json.loads(elth("grids", "--json", "--store", finished.store).out)
    (one,) = [one for one in found if one["name"] == "done"]
    assert (one["stages"], one["finished"], one["failed"]) == (24, 24, 0)
    assert one["size"] > 10_000
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", one["seen"])
    Tracker(Store.of(tmp_path / "empty"))
    assert elth("grids", "--store", tmp_path / "empty").out.endswith("holds no grid\n")


@pytest.mark.parametrize("width", [76, 80])
def test_names_of_grids_are_whole_in_a_narrow_terminal(
    width: int,
    finished: Finished,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = "a-grid-with-a-long-name"
    finished.tracker.grids.open(name, "", finished.plan.stages, "What it is about.")
    monkeypatch.setattr(housekeeping, "out", Console(width=width))
    housekeeping.print_grids(str(finished.store), as_json=False)
    shown = capsys.readouterr().out
    assert "description" not in shown
    first = [line.split("│")[1].strip() for line in shown.splitlines() if line.startswith("│")]
    assert name in "".join(first)


def test_rm_asks_tells_and_takes_back(
    elth: Elth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "runs"
    tracker = Tracker(Store.of(store))
    (start, *_) = stages = chain("mine")
    plan = {one.key: one for one in stages}
    tracker.grids.open("mine", tiny("mine").resolved(), plan, "")
    begin(tracker, start, grid="mine").finish(rewind_result(), keep_weights=False)
    here = ("--store", store)
    dry = elth("rm", "mine", "--dry-run", *here)
    assert (dry.code, dry.err) == (0, "")
    assert re.fullmatch(rf"mine in {store}: 1 runs would go, with .* of results; 0 stay\n", dry.out)
    assert elth("rm", "mine", *here).err.endswith("give --yes, or --dry-run first\n")
    assert tracker.run_of(start.key) is not None
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr(click, "confirm", lambda text: text == "Remove mine?")
    done = elth("rm", "mine", *here)
    assert (done.code, done.err) == (0, "")
    assert "removed mine: 1 runs are in the trash; elth rm --restore mine takes them" in done.out
    assert tracker.run_of(start.key) is None
    refused(elth("rm", "mine", "--yes", *here), "has no grid 'mine' (it has: none)")
    assert "restored mine: 1 runs are back" in elth("rm", "mine", "--restore", *here).out
    assert tracker.run_of(start.key) is not None
    elth("rm", "mine", "--yes", *here)
    young = elth("rm", "--purge", "--yes", *here)
    assert "files of 0 runs" in young.out
    assert "2 runs are in the trash for less than that" in young.out
    dry = elth("rm", "--purge", "--dry-run", "--older-than", "0s", *here)
    assert "removed for good" not in dry.out
    done = elth("rm", "--purge", "--yes", "--older-than", "0s", *here)
    assert "removed for good: files of 2 runs" in done.out
    refused(elth("rm", "mine", "--restore", *here), "were removed for good: give elth run with")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Missing argument 'GRID'"),
        (["x", "--restore", "--purge"], "give --restore or --purge, not both"),
        (["x", "--restore", "--dry-run"], "--dry-run does not go with --restore"),
        (["--purge", "--older-than", "soon"], "'soon' is no length of time: give one as 12h, 7d"),
    ],
)
def test_rm_refuses_what_it_does_not_mean(elth: Elth, words: list[str], message: str) -> None:
    done = elth("rm", *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_gc_tells_by_kind_and_removes_what_is_old(elth: Elth, tmp_path: Path) -> None:
    store = tmp_path / "runs"
    tracker = Tracker(Store.of(store))
    (start, *_) = chain("mine")
    log = begin(tracker, start, grid="mine")
    log.finish(rewind_result(), keep_weights=False)
    tracker.client.delete_run(log.run_id)
    here = ("gc", "--store", store)
    done = elth(*here)
    assert (done.code, done.err) == (0, "")
    assert re.search(r"│ trash +│ +1 │ +[\d.]+ kB │ +0 │ +0 kB │", done.out)
    assert re.search(r"│ orphaned +│ +0 │", done.out)
    assert "removed" not in done.out
    dry = elth(*here, "--older-than", "0s", "--dry-run")
    assert re.search(r"│ trash +│ +1 │ +[\d.]+ kB │ +1 │ +[\d.]+ kB │", dry.out)
    assert artifact(tracker, log.run_id, "result").is_dir()
    done = elth(*here, "--older-than", "0s")
    assert re.search(r"\nremoved: 1, [\d.]+ kB\n$", done.out)
    assert not artifact(tracker, log.run_id, "result").exists()


def test_gc_tells_of_each_of_two_that_have_one_name(
    elth: Elth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deleted run, and what waited in the outbox for it."""
    store = tmp_path / "runs"
    tracker = Tracker(Store.of(store))
    log = begin(tracker, chain("mine")[0], grid="mine")
    log.finish(rewind_result(), keep_weights=False)
    tracker.client.delete_run(log.run_id)
    waits = tracker.store.outbox / log.run_id
    waits.mkdir(parents=True)

    def refuse(*_: object) -> None:
        raise ElthError("a disk that may only be read")

    monkeypatch.setattr(leftovers, "remove_files", refuse)
    done = elth("gc", "--store", store, "--older-than", "0s")
    assert re.search(r"\nremoved: 1, [\d.]+ kB\n", done.out)
    assert done.out.endswith(f"not removed: trash {log.run_id}: a disk that may only be read\n")
    assert not waits.exists()
    assert artifact(tracker, log.run_id, "result").is_dir()


def test_gc_lets_weights_go(elth: Elth, tmp_path: Path) -> None:
    store = tmp_path / "runs"
    tracker = Tracker(Store.of(store))
    start, *rounds = stages = chain("mine")
    plan = {one.key: one for one in stages}
    tracker.grids.open("mine", tiny("mine").resolved(), plan, "")
    begin(tracker, start, grid="mine").finish(rewind_result(), keep_weights=False)
    for number, stage in enumerate(rounds):
        log = begin(tracker, stage, grid="mine")
        log.finish(round_result(900 - number), keep_weights=True)
    here = ("gc", "--weights", "mine", "--store", store)
    dry = elth(*here, "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    assert re.fullmatch(
        rf"mine in {store}: trained weights of 2 rounds, [\d.]+ kB; those of the last round of "
        r"each chain stay \(1\)\n",
        dry.out,
    )
    assert re.search(r"\nremoved: weights of 2 rounds, [\d.]+ kB\n$", elth(*here).out)
    assert "trained weights of 0 rounds" in elth(*here).out
    assert "4 whole" in elth("verify", "mine", "--store", store).out
    refused(elth("gc", "--weights", "x", "--store", store), "has no grid 'x' (it has: mine)")
