"""``elth why`` and ``elth diff``: what a stage has not in common with another."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from orchestrator.store.address import Store
from orchestrator.store.marks import ASKED, STALE
from orchestrator.store.tracker import Tracker
from tests.orchestrator.cli.helpers import Elth, refused
from tests.orchestrator.helpers import (
    TINY,
    TINY_DEEPER,
    Finished,
    begin,
    chain,
    rewind_result,
    round_of,
    tiny,
)


def test_two_configs_are_compared_without_a_store(elth: Elth, config: Path) -> None:
    done = elth("diff", config, config, "seeds=[1]", "--b", "pruning.rounds=3")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"A: {config}\nB: {config} pruning.rounds=3\n")
    assert re.search(r"round +│ +3 │ +0 │ +1 │", done.out)
    assert "pruning.rounds: 2 -> 3  (alone: 0 stages of A no more asked for, 1 new ones)" in (
        done.out
    )
    assert "Cells: 2 in both by the same stages, seeds counted." in done.out
    assert f"Cells in B only: 1\n    {TINY} round 3 on digits, seed 1\n" in done.out
    assert not Path("runs").exists()
    done = elth("diff", config, config)
    assert "No field of the experiments differs." in done.out


def test_a_comparison_as_json(elth: Elth, config: Path) -> None:
    found = json.loads(elth("diff", config, config, "--b", "recipe.lr=0.05", "--json").out)
    assert found["stages"]["round"] == {"both": 0, "a": 3, "b": 3}
    assert found["fields"] == [{"path": "recipe.lr", "a": 0.1, "b": 0.05, "lost": 4, "new": 4}]
    assert [cell["why"][0]["path"] for cell in found["other"]] == ["recipe.lr"] * 2


def test_comparing_configs_imports_neither_torch_nor_mlflow(config: Path) -> None:
    code = (
        "import sys\n"
        "from orchestrator.cli.main import main\n"
        f"sys.argv = ['elth', 'diff', {str(config)!r}, {str(config)!r}, '--b', 'seeds=[1]']\n"
        "main()\n"
        "print(sorted({'torch', 'mlflow', 'ray', 'scipy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_config_is_compared_with_a_grid(
    elth: Elth, finished: Finished, done_config: Path
) -> None:
    words = ("diff", done_config, "done", "--a", "seeds=[0]", "--store", finished.store)
    done = elth(*words)
    assert (done.code, done.err) == (0, "")
    assert "B: the grid done" in done.out
    assert "seeds: [0] -> [0, 1]  (alone: 0 stages of A no more asked for, 12 new ones)" in done.out
    refused(elth("diff", done_config, "nowhere", "--store", finished.store), "has no grid")


def test_why_a_finished_stage(elth: Elth, finished: Finished) -> None:
    stage = round_of(finished.plan, TINY, 2, seed=1)
    for name in (stage.title, stage.key[:10]):
        done = elth("why", name, "--store", finished.store)
        assert (done.code, done.err) == (0, "")
        lines = done.out.splitlines()
        assert lines[:2] == [f"{stage.title}: finished", f"  key {stage.key}"]
        assert re.search(r"^  run [0-9a-f]{32}, begun 20\d\d-", done.out, re.MULTILINE)
        assert "  numerics class: cpu" in done.out
        grids = re.search(r"grids: (.*)", done.out)
        assert grids is not None
        assert "done" in grids[1].split(", ")
        assert f"  made of: {TINY} round 1, seed 1, finished" in lines
    refused(elth("why", "round 1", "--store", finished.store), "'round 1' is no stage of the stor")


def test_why_stages_of_a_config_are_to_do(
    elth: Elth, finished: Finished, done_config: Path
) -> None:
    done = elth("why", done_config, "--store", finished.store)
    assert done.out.endswith("of 24 stages 24 are finished, 0 are not\n")
    changed = ("why", done_config, "recipe.lr=0.05", "seeds=[0,7]", "--store", finished.store)
    done = elth(*changed)
    assert "of 24 stages 0 are finished, 24 are not" in done.out
    assert "12 to do: recipe.lr is 0.05, and 0.1 in the store" in done.out
    assert "12 to do: no finished one has its seed" in done.out
    assert f"{TINY} rewind point, seed 7 (" in done.out
    plain = json.loads(elth(*changed, "--json").out)
    assert len(plain) == 24
    assert {one["state"] for one in plain} == {"to do"}
    assert plain[0]["differences"] == [
        {"path": "recipe.lr", "store": 0.1, "here": 0.05, "where": ""}
    ]
    other = elth(
        "why", done_config, "grid=[{method: imp, network: conv4}]", "--store", finished.store
    )
    assert "nothing comparable: the store has no finished round of conv4" in other.out


def test_why_one_stage_of_a_config(elth: Elth, finished: Finished, done_config: Path) -> None:
    title = f"{TINY_DEEPER} reinit round 2, seed 0"
    words = (done_config, "pruning.rate=0.4", "--stage", title, "--store", finished.store)
    done = elth("why", *words)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{title}: to do\n  key ")
    assert f"  nearest finished: {title} (run " in done.out
    assert f"\n    rate of {TINY_DEEPER} round 2, seed 0 is 0.4, and 0.5 in the store\n" in done.out
    assert f"  made of: {TINY_DEEPER} round 2, seed 0, to do" in done.out
    plain = json.loads(elth("why", *words, "--json").out)
    assert (plain["state"], len(plain["differences"])) == ("to do", 1)
    refused(elth("why", *words[:2], "--stage", "x", *words[4:]), "'x' is no stage of done")


def test_why_stages_in_other_states(elth: Elth, store: Store, tracker: Tracker) -> None:
    stages = chain("cli-why", seeds=[60], pruning={"rate": 0.5, "rounds": 4})
    logs = {stage.key: begin(tracker, stage, grid="cli-why") for stage in stages[1:5]}
    tracker.grids.open(
        "cli-why",
        tiny("cli-why", seeds=[60], pruning={"rate": 0.5, "rounds": 4}).resolved(),
        {stage.key: stage for stage in stages},
        "",
    )
    details = "Traceback (most recent call last):\n  File a, line 3\n    save()\nOSError: no disk"
    logs[stages[1].key].fail("no disk", final=True, details=details)
    damaged, killed = (tracker.client.get_run(logs[stages[k].key].run_id) for k in (2, 3))
    tracker.set_aside(damaged, "its checksum is wrong")
    tracker.client.update_run(killed.info.run_id, "KILLED")

    def why(number: int) -> str:
        done = elth("why", stages[number].key[:12], "--store", store)
        assert (done.code, done.err) == (0, "")
        return done.out

    assert ": failed\n" in why(1)
    assert "no disk (elth run --retry-failed does it again)" in why(1)
    assert "its traceback.txt ends with\n" in why(1)
    assert why(1).rstrip().splitlines()[-1].strip() == "OSError: no disk"
    assert ": set aside\n" in why(2)
    assert "its checksum is wrong" in why(2)
    assert ": interrupted\n" in why(3)
    assert ": running\n" in why(4)
    assert "at it for" in why(4)
    assert f"made of: {stages[3].title}, interrupted" in why(4)
    assert ": to do" in why(0), "of which only the grid's plan knows"
    tracker.client.delete_run(killed.info.run_id)
    assert "a run of it is there and deleted" in why(3)
    for log in logs.values():
        log.stop()
    tracker.client.delete_run(logs[stages[4].key].run_id)


def test_why_a_stage_is_to_do_again(elth: Elth, store: Store, tracker: Tracker) -> None:
    stage = chain("cli-again", seeds=[61])[0]
    log = begin(tracker, stage, grid="cli-again")
    log.finish(rewind_result(), keep_weights=False)
    tracker.client.set_tag(log.run_id, ASKED, "x")
    done = elth("why", stage.title, "--store", store)
    assert done.out.startswith(f"{stage.title}: to do again\n")
    assert "elth run --redo asked for it: the same command goes on with it" in done.out
    tracker.client.set_tag(log.run_id, STALE, "x")
    done = elth("why", stage.title, "--store", store)
    assert "what it is made of came out different when that was done again" in done.out
