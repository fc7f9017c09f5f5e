"""A grid that is carried from store to store: equal there, trained nowhere, or refused whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from mlflow.entities import Param

from elth.errors import ElthError
from elth.tickets import Ticket
from orchestrator import plan as plans
from orchestrator.cli.main import cli
from orchestrator.store import carrying, redo, trash
from orchestrator.store.address import Store
from orchestrator.store.bundle import Bundle, Writer, opened, run_at
from orchestrator.store.describing import placed
from orchestrator.store.leases import Lease, claim
from orchestrator.store.listing import Tracked
from orchestrator.store.marks import ASKED, STALE
from orchestrator.store.opening import NOTE, STAGES
from orchestrator.store.tracker import Tracker
from tests.orchestrator.helpers import (
    ELSEWHERE,
    Finished,
    as_before,
    begin,
    chain,
    epoch,
    rewind_result,
    round_result,
    tiny,
)

OLD = Path(__file__).parents[2] / "data" / "store_645568c.tar.xz"
"""A store of six stages that an earlier version made, and its report as JSON."""


def elth(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def said(*words: object) -> str:
    """What a command prints that is not refused."""
    done = elth(*words)
    assert done.exit_code == 0, done.exception or done.output
    return done.output


def refused(*words: object) -> str:
    done = elth(*words)
    assert isinstance(done.exception, ElthError), done.output
    return str(done.exception)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of an earlier version, ``runs``, and its grid ``small`` as a bundle."""
    folder = tmp_path_factory.mktemp("here")
    with tarfile.open(OLD) as packed:
        packed.extractall(folder, filter="data")
    said("export", "small", "-o", folder / "small.tar", "--store", folder / "runs")
    return folder


@pytest.fixture(scope="module")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which nothing is; to create one takes seconds, and to copy one does not."""
    folder = tmp_path_factory.mktemp("blank")
    Tracker(Store.of(folder))
    return folder


@pytest.fixture
def stores(tmp_path: Path, blank: Path) -> None:
    """Stores in which nothing is: ``a``, ``b``, ``c``."""
    for name in "abc":
        shutil.copytree(blank, tmp_path / name)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory, here: Path) -> Path:
    """A store into which the bundle was imported, and that no test changes."""
    folder = tmp_path_factory.mktemp("there") / "runs"
    told = said("import", here / "small.tar", "--store", folder)
    assert "imported 6 stages of small into" in told
    assert "The grid small is new" in told
    return folder


def make(
    folder: Path, name: str, *, kept: int = 700, rounds: int = 99, **changes: object
) -> Tracker:
    """A store with a chain whose first stages have results that are drawn, of two epochs each."""
    tracker = Tracker(Store.of(folder))
    found = tiny(name, **changes)
    built = plans.build(found)
    tracker.grids.extend(found, built, tracker.grids.change(found, built))
    for stage in list(built.stages.values())[:rounds]:
        if tracker.runs_of(stage.key):
            continue
        log = begin(tracker, stage, grid=name, numerics="cpu/far")
        params = [Param("nonzeros", str(kept)), Param("prunable", "10000")]
        tracker.client.log_batch(log.run_id, params=params)
        log.epoch(epoch(1), at=1_700_000_001_000)
        log.epoch(epoch(2, 60.0 + int(stage.labels["seed"])), at=1_700_000_002_000)
        is_start = stage.kind == "rewind_point"
        seed = int(stage.labels["seed"])
        log.finish(rewind_result(seed=seed) if is_start else round_result(kept), keep_weights=True)
    return tracker


def runs(tracker: Tracker) -> dict[str, Tracked]:
    return {one.key: one for one in tracker.stages()}


def test_a_grid_is_equal_in_another_store(here: Path, there: Path, tmp_path: Path) -> None:
    for form in (["--json"], ["--csv"], []):
        words = ["report", "small", *form, "--store"]
        assert said(*words, there) == said(*words, here / "runs")
    told = said("report", "small", "--json", "--store", there)
    assert as_before(told) == (here / "report.json").read_text(encoding="utf-8")
    assert "6 whole" in said("verify", "small", "--store", there)
    before, after = (Tracker(Store.of(f), reading=True) for f in (here / "runs", there))
    assert runs(before).keys() == runs(after).keys()
    sums = {}
    for store in (here / "runs", there):
        file = tmp_path / "ticket.safetensors"
        last = next(one for one in runs(before).values() if one.stage.labels["round"] == 2)
        said("ticket", "export", last.key, "-o", file, "--store", store)
        sums[store] = hashlib.sha256(file.read_bytes()).hexdigest()
    assert len(set(sums.values())) == 1


def test_runs_bear_what_they_bore_where_they_were_computed(here: Path, there: Path) -> None:
    before, after = (Tracker(Store.of(f), reading=True) for f in (here / "runs", there))
    for key, one in runs(before).items():
        old, new = before.client.get_run(one.run_id), after.run_of(key)
        assert new is not None
        assert new.data.params == old.data.params
        for name in old.data.metrics:
            history = [
                t.client.get_metric_history(r.info.run_id, name)
                for t, r in ((before, old), (after, new))
            ]
            points = [[(p.value, p.timestamp, p.step) for p in some] for some in history]
            assert points[0] == points[1]
            assert points[0]
        for field in ("start_time", "end_time", "status", "run_name"):
            assert getattr(new.info, field) == getattr(old.info, field)
        own = {"elth.imported", "elth.owner", "elth.beat", "elth.seen"}
        mine = {k: v for k, v in new.data.tags.items() if k not in own}
        assert mine == {k: v for k, v in old.data.tags.items() if k not in own}
        assert "grid.small" in mine
        assert after.files.tree(new.info.run_id) == before.files.tree(old.info.run_id)


def test_one_grid_is_one_file_and_what_was_imported_is_exported_as_it_was(
    here: Path, there: Path, tmp_path: Path
) -> None:
    for store in (here / "runs", there):
        told = said("export", "small", "-o", tmp_path / "again.tar", "--store", store)
        assert "6 stages of small" in told
        assert (tmp_path / "again.tar").read_bytes() == (here / "small.tar").read_bytes()
    assert [p.name for p in tmp_path.iterdir() if ".tmp" in p.name] == []


def test_what_is_there_already_stays(here: Path, there: Path) -> None:
    before = {key: one.run_id for key, one in runs(Tracker(Store.of(there))).items()}
    told = said("import", here / "small.tar", "--store", there)
    assert "imported 0 stages" in told
    assert "6 were there already, the same bit for bit" in told
    assert {key: one.run_id for key, one in runs(Tracker(Store.of(there))).items()} == before


@pytest.mark.usefixtures("stores")
def test_a_store_with_another_grid_takes_one_more(here: Path, tmp_path: Path) -> None:
    tracker = make(tmp_path / "a", "own")
    own = said("report", "own", "--json", "--store", tmp_path / "a")
    said("import", here / "small.tar", "--store", tmp_path / "a")
    assert said("report", "own", "--json", "--store", tmp_path / "a") == own
    assert tracker.grids.names() == ["own", "small"]


@pytest.mark.parametrize("deleted", [1, 6])
def test_an_import_takes_back_what_a_removal_began_and_says_so(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deleted: int
) -> None:
    store = tmp_path / "runs"
    shutil.copytree(here / "runs", store)
    left, whole = iter(range(deleted)), trash._delete

    def cut_off(*given: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        whole(*given)

    with monkeypatch.context() as patched:
        patched.setattr(trash, "_delete", cut_off)
        elth("rm", "small", "--yes", "--store", store)
    told = said("import", here / "small.tar", "--store", store)
    assert f"elth rm small was cut off before its end: {deleted} runs" in told
    assert "imported 0 stages" in told
    assert "cut off" not in said("import", here / "small.tar", "--store", store)


def test_a_byte_that_is_flipped_lets_nothing_be_imported(here: Path, tmp_path: Path) -> None:
    whole = (here / "small.tar").read_bytes()
    with tarfile.open(here / "small.tar") as tar:
        member = next(m for m in tar if m.name.endswith("trained.safetensors"))
    at = member.offset_data + member.size - 8
    (tmp_path / "bad.tar").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    told = refused("import", tmp_path / "bad.tar", "--store", tmp_path / "never")
    assert f"{member.name} is damaged" in told
    assert "nothing was imported" in told
    assert not (tmp_path / "never").exists()


def changed(bundle: Path, to: Path, name: str, edit: bytes) -> Path:
    """A bundle in which a member holds something else, with the checksums of a forger."""
    with bundle.open("rb") as file, to.open("wb") as out:
        found, writer = Bundle(bundle, file), Writer(out)
        for member in found.below(""):
            content = found.text(member, bytes)
            writer.text(member, edit if member == name else content)
        writer.close()
    return to


def test_a_result_is_checked_by_its_own_checksums_too(here: Path, tmp_path: Path) -> None:
    with opened(here / "small.tar") as bundle:
        name = next(n for n in bundle.below("stages/") if n.endswith("mask.safetensors"))
        content = bundle.text(name, bytes)
        key = bundle.stages()[0]
        record = bundle.text(run_at(key), bytes)
    cases = [
        (name, content[:-1] + bytes([content[-1] ^ 1]), "its checksum is not that of its content"),
        (name, content[:-9], "no whole safetensors file|and [0-9,]+ were written"),
        (run_at(key), record.replace(b'\\"seed\\": 0', b'\\"seed\\": 7'), "is of the stage"),
        (run_at(key), b"[1]", "does not say what it should"),
        (run_at(key), b'{"params": {}}', "does not say what it should"),
        ("grid/keys.json", b"{}", "does not name the stage"),
        ("grid/experiment.yaml", b"a: [", "grid/experiment.yaml does not say"),
        ("bundle.json", b'{"format": 9}', "bundle format 9; this version reads 1"),
        ("bundle.json", b'{"format": 1, "grid": "../x"}', "is no name of a grid"),
    ]
    for member, edit, told in cases:
        path = changed(here / "small.tar", tmp_path / "bad.tar", member, edit)
        with pytest.raises(ElthError, match=told), opened(path) as bundle:
            carrying.check(bundle)


@pytest.mark.usefixtures("stores")
def test_an_import_that_is_cut_off_goes_on(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, count = carrying._write, iter(range(100))

    def cut(*words: Any) -> None:
        if next(count) == 3:
            raise KeyboardInterrupt
        write(*words)

    monkeypatch.setattr(carrying, "_write", cut)
    words = ["import", here / "small.tar", "--store", tmp_path / "a"]
    assert elth(*words).exit_code == 1  # Ctrl-C, to click's runner
    tracker = Tracker(Store.of(tmp_path / "a"))
    assert sum(one.status == "finished" for one in tracker.stages()) == 3
    assert tracker.grids.run("small") is None, "a grid that is there is as it was brought"
    told = said(*words)
    assert "imported 3 stages" in told
    assert "3 were there already" in told
    assert len(tracker.stages()) == 6
    forms = ["report", "small", "--json", "--store"]
    assert said(*forms, tmp_path / "a") == said(*forms, here / "runs")


@pytest.mark.usefixtures("stores")
def test_a_stage_that_a_process_left_behind_is_taken_over(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELTH_LEASE_SECONDS", "0.2")
    monkeypatch.setattr(carrying, "_PAUSE", 0.05)
    tracker = Tracker(Store.of(tmp_path / "a"))
    stage = next(iter(runs(Tracker(Store.of(here / "runs"), reading=True)).values())).stage
    lease = claim(tracker, stage, grid="small", driver=ELSEWHERE, since=0.0)
    assert isinstance(lease, Lease)
    lease.end()
    assert "imported 6" in said("import", here / "small.tar", "--store", tmp_path / "a")
    assert len(tracker.stages()) == 6


@pytest.mark.usefixtures("stores")
def test_a_stage_that_another_process_is_at_is_left_to_it(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Tracker(Store.of(tmp_path / "a"))
    stage = next(iter(runs(Tracker(Store.of(here / "runs"), reading=True)).values())).stage
    lease = claim(tracker, stage, grid="small", driver=ELSEWHERE, since=0.0)
    assert isinstance(lease, Lease)
    run_id, beats = lease.run_id, iter(range(100))

    def beat(_: float) -> None:
        tracker.client.set_tag(run_id, "elth.beat", f"{next(beats)} 60")

    monkeypatch.setattr(time, "sleep", beat)
    told = refused("import", here / "small.tar", "--store", tmp_path / "a")
    lease.end()
    assert f"another process is at {stage.title}" in told
    assert "give the same command again" in told


@pytest.mark.usefixtures("stores")
def test_another_result_of_a_stage_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    make(tmp_path / "a", "one")
    said("export", "one", "-o", tmp_path / "one.tar", "--store", tmp_path / "a")
    tracker = make(tmp_path / "b", "two", kept=600)
    told = refused("import", tmp_path / "one.tar", "--store", tmp_path / "b")
    assert "has other results of 3 stages" in told
    assert "round 2, seed 0 (cpu/far there, cpu/far here)" in told
    assert "nothing was imported; import it into another store" in told
    assert tracker.grids.names() == ["two"]
    assert all(one.grids == {"two"} for one in tracker.stages())


@pytest.mark.usefixtures("stores")
def test_seeds_of_two_stores_add_up_and_the_parts_are_put_together_anywhere(
    tmp_path: Path,
) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        make(tmp_path / name, "one", seeds=[seed])
        bundle = tmp_path / f"{name}.tar"
        said("export", "one", "-o", bundle, "--store", tmp_path / name)
        told = said("import", bundle, "--store", tmp_path / "c")
    assert "The grid one in" in told
    assert "goes on: 4 stages are added to its 4, seed 1 to seed 0" in told
    make(tmp_path / "a", "one", seeds=[0, 1])
    forms = ["report", "one", "--json", "--store"]
    assert said(*forms, tmp_path / "c") == said(*forms, tmp_path / "a")
    assert '"seeds":[0,1]' in said(*forms, tmp_path / "c").replace("\n", "").replace(" ", "")
    told = said("import", tmp_path / "a.tar", "--store", tmp_path / "c")
    assert "The grid one holds more than this file asks for" in told
    experiment = tiny("one", seeds=[0, 1])
    change = Tracker(Store.of(tmp_path / "c")).grids.change(experiment, plans.build(experiment))
    assert change.after.places == change.before.places  # type: ignore[union-attr]


@pytest.mark.usefixtures("stores")
def test_a_grid_of_its_name_goes_on_or_is_another(tmp_path: Path) -> None:
    make(tmp_path / "a", "one", pruning={"rate": 0.5, "rounds": 3})
    bundle = tmp_path / "one.tar"
    said("export", "one", "-o", bundle, "--store", tmp_path / "a")
    tracker = make(tmp_path / "b", "one")
    told = said("import", bundle, "--store", tmp_path / "b")
    assert "imported 1 stages of one" in told
    assert "4 were there already" in told
    assert len(tracker.grids.keys("one")) == 5
    other = make(tmp_path / "c", "one", pruning={"rate": 0.3, "rounds": 2})
    told = refused("import", bundle, "--store", tmp_path / "c")
    assert "pruning.rate is 0.3 there and 0.5 here" in told
    assert "by --name OTHER" in told
    assert other.grids.names() == ["one"]
    assert len(other.stages()) == 4
    said("import", bundle, "--name", "far", "--store", tmp_path / "c")
    assert sorted(other.grids.names()) == ["far", "one"]
    assert other.grids.experiment("far")["name"] == "far"
    forms = ("--json", "--store")
    mine = said("report", "far", *forms, tmp_path / "c")
    assert mine == said("report", "one", *forms, tmp_path / "a")
    assert "is what this file says now" in said(
        "import", bundle, "--replace", "--store", tmp_path / "c"
    )
    assert "is no name of a grid" in refused("import", bundle, "--name", "a b")


@pytest.mark.usefixtures("stores")
def test_what_is_not_finished_is_not_in_a_bundle_and_marks_stay_behind(tmp_path: Path) -> None:
    tracker = make(tmp_path / "a", "one")
    first = runs(tracker)[chain()[0].key]
    tracker.client.set_tag(first.run_id, ASKED, "somebody")
    tracker.client.set_tag(first.run_id, "grid.other", "true")
    more = tiny("one", pruning={"rate": 0.5, "rounds": 4})
    built = plans.build(more)
    tracker.grids.extend(more, built, tracker.grids.change(more, built))
    told = said("export", "one", "-o", tmp_path / "one.tar", "--store", tmp_path / "a")
    assert "4 stages of one" in told
    assert "without 2 that are not finished" in told
    said("import", tmp_path / "one.tar", "--store", tmp_path / "b")
    there = Tracker(Store.of(tmp_path / "b"))
    found = there.run_of(first.key)
    assert found is not None
    assert not {ASKED, "grid.other"} & found.data.tags.keys()
    assert len(there.grids.keys("one")) == 6


@pytest.mark.usefixtures("stores")
def test_chains_that_end_early_end_there_too(tmp_path: Path) -> None:
    stop = {"rate": 0.5, "rounds": 4, "stop": {"accuracy_below": 99}}
    make(tmp_path / "a", "one", pruning=stop, rounds=2)
    told = said("export", "one", "-o", tmp_path / "one.tar", "--store", tmp_path / "a")
    assert "2 stages of one in" in told
    assert "not finished" not in told, "what is ended is not to do"
    said("import", tmp_path / "one.tar", "--store", tmp_path / "b")
    words = ["status", "one", "--store"]
    there = said(*words, tmp_path / "b")
    assert "ended" in there
    assert there.splitlines()[1:] == said(*words, tmp_path / "a").splitlines()[1:]


def test_a_damaged_stage_is_not_exported(here: Path, tmp_path: Path) -> None:
    shutil.copytree(here / "runs", tmp_path / "runs")
    mask = next((tmp_path / "runs" / "artifacts").rglob("mask.safetensors"))
    content = mask.read_bytes()
    (tmp_path / "small.tar").write_bytes(b"the one before")
    for broken, word in (
        (content[:-1] + bytes([content[-1] ^ 1]), "checksum"),
        (None, "not there"),
    ):
        mask.unlink()
        if broken is not None:
            mask.write_bytes(broken)
        words = ["-o", tmp_path / "small.tar", "--store", tmp_path / "runs"]
        told = refused("export", "small", *words)
        assert word in told
        assert "elth verify --set-aside" in told
        mask.write_bytes(content)
    assert (tmp_path / "small.tar").read_bytes() == b"the one before"
    assert [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []


def test_a_config_asks_for_a_part(here: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "part.tar"
    words = ["seeds=[0]", "grid=[{method: imp, network: 'resnet14(width=2)', round: [1]}]"]
    told = said("export", here / "small.yaml", *words, "-o", bundle, "--store", here / "runs")
    assert "stages of small in" in told
    with opened(bundle) as found:
        assert 0 < len(found.stages()) < 6
        assert found.below("grid/report/") == []


def test_an_export_that_cannot_be_written_says_why(here: Path, tmp_path: Path) -> None:
    words = ["--store", here / "runs"]
    told = refused("export", "small", "-o", tmp_path / "none" / "x.tar", *words)
    assert "cannot write" in told
    assert "No such file or directory" in told
    assert "has no grid 'none'" in refused("export", "none", *words)


def test_tickets_of_what_was_imported_can_be_made(there: Path, tmp_path: Path) -> None:
    last = max(runs(Tracker(Store.of(there))).values(), key=lambda one: one.stage.labels["round"])
    said("ticket", "export", last.key, "-o", tmp_path / "t.safetensors", "--store", there)
    assert Ticket.load(tmp_path / "t.safetensors").nonzeros == last.nonzeros


def test_analyses_and_names_of_variants_are_brought(
    inside: Finished, tmp_path: Path, stores: None
) -> None:
    carrying.export(inside.tracker, "inside", tmp_path / "inside.tar")
    said("import", tmp_path / "inside.tar", "--store", tmp_path / "a")
    there = Tracker(Store.of(tmp_path / "a"))
    named = {}
    for tracker in (inside.tracker, there):
        runs = {run.data.tags["elth.key"]: run.data.tags for run in tracker.search()}
        named[tracker] = {key: runs[key].get("variant.inside") for key in inside.plan.stages}
    assert named[there] == named[inside.tracker]
    assert "none, same" in named[there].values()
    for key in inside.plan.analyses:
        assert there.load(key)[1].measured == inside.tracker.load(key)[1].measured


def test_what_is_made_of_what_came_out_different_is_not_carried(tmp_path: Path) -> None:
    tracker = make(tmp_path / "a", "marked")
    words = ("export", "marked", "-o", tmp_path / "x.tar", "--store", tmp_path / "a")
    whole = len(runs(tracker))
    assert f"wrote {tmp_path / 'x.tar'}: {whole} stages of marked in" in said(*words)
    last = max(runs(tracker).values(), key=lambda one: one.stage.labels["round"])
    tracker.client.set_tag(last.run_id, STALE, "of now")
    told = said(*words)
    assert f": {whole - 1} stages of marked in" in told
    assert (
        ", without 1 that are not finished, 1 of them as what they are made of came out different"
        in told
    )
    log = begin(tracker, last.stage, grid="marked", numerics="cpu/near")
    log.epoch(epoch(1))
    log.finish(round_result(699), keep_weights=True)
    assert f": {whole} stages of marked in" in said(*words)
    with opened(tmp_path / "x.tar") as bundle:
        told = bundle.text(run_at(last.key), str)
    assert "cpu/near" in told


def test_of_a_chain_that_is_being_done_again_what_follows_is_not_carried(tmp_path: Path) -> None:
    tracker = make(tmp_path / "a", "marked")
    words = ("export", "marked", "-o", tmp_path / "x.tar", "--store", tmp_path / "a")
    start, dense, one, two = chain()[:4]
    there = runs(tracker)
    tracker.client.set_tag(there[one.key].run_id, STALE, "of now")  # as dense came out different
    assert ": 2 stages of marked in" in said(*words)
    with opened(tmp_path / "x.tar") as bundle:
        assert set(bundle.stages()) == {start.key, dense.key}
    tracker.client.delete_tag(there[one.key].run_id, STALE)
    assert ": 4 stages of marked in" in said(*words)

    tracker.client.set_tag(there[dense.key].run_id, ASKED, "somebody")
    begin(tracker, dense, grid="marked").finish(round_result(699), keep_weights=True)
    assert ": 2 stages of marked in" in said(*words), "it is not compared yet with what it was"
    with opened(tmp_path / "x.tar") as bundle:
        assert not {one.key, two.key} & set(bundle.stages())


def test_what_was_set_aside_is_compared_with_what_is_brought_in_its_place(tmp_path: Path) -> None:
    make(tmp_path / "a", "one")
    said("export", "one", "-o", tmp_path / "one.tar", "--store", tmp_path / "a")
    there = make(tmp_path / "b", "one", kept=650)
    for one in there.stages():
        run = there.client.get_run(one.run_id)
        there.set_aside(run, "for a test")
    told = said("import", tmp_path / "one.tar", "--store", tmp_path / "b")
    assert "imported 4 stages of one into" in told
    tracker = Tracker(Store.of(tmp_path / "b"))
    assert not redo.waiting(tracker, tracker.stages())


def test_a_description_leads_to_the_store_that_it_is_in(tmp_path: Path) -> None:
    make(tmp_path / "a", "one")
    said("export", "one", "-o", tmp_path / "one.tar", "--store", tmp_path / "a")
    with opened(tmp_path / "one.tar") as bundle:
        told = [bundle.text(run_at(key), json.loads)["tags"][NOTE] for key in bundle.stages()]
    assert sum("(#/experiments/0/runs" in note for note in told) == 3, "of no store"
    said("import", tmp_path / "one.tar", "--store", tmp_path / "b")
    there = Tracker(Store.of(tmp_path / "b"))
    place = f"(#/experiments/{there.experiments[STAGES]}/runs"
    notes = [there.client.get_run(one.run_id).data.tags[NOTE] for one in there.stages()]
    assert sum(place in note for note in notes) == 3
    assert placed("[a](#/experiments/12/runs?x)", "7") == "[a](#/experiments/7/runs?x)"


@pytest.mark.usefixtures("stores")
def test_a_file_that_cannot_be_had_is_told_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = make(tmp_path / "a", "one", rounds=1)

    fetched = tracker.files.fetched

    @contextlib.contextmanager
    def full(run_id: str, name: str) -> Iterator[Path]:
        if not name:  # all that a stage has
            raise OSError(errno.ENOSPC, "No space left on device")
        with fetched(run_id, name) as path:
            yield path

    monkeypatch.setattr(tracker.files, "fetched", full)
    with pytest.raises(ElthError, match="cannot be had: No space left on device; make room on"):
        carrying.export(tracker, "one", tmp_path / "x.tar")
    assert not (tmp_path / "x.tar").exists()
