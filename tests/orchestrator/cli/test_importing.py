"""``elth ticket import`` into a store, and what commands say before a grid starts from it."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from rich.console import Console

from elth.data import info
from elth.errors import ElthError
from elth.specs import Spec
from elth.tickets import Ticket
from orchestrator import plan
from orchestrator.cli.main import cli
from orchestrator.cluster import arithmetic
from orchestrator.cluster.doctor import check_tickets
from orchestrator.experiment.reading import load
from orchestrator.store.address import Store
from orchestrator.work import driver, runner
from tests.orchestrator.helpers import RECIPE, TINY, rewind_result, round_result, write_yaml

IMPORT = ("ticket", "import", "--network", TINY)
BASE: dict[str, Any] = {
    "name": "theirs",
    "dataset": "digits",
    "seeds": [0],
    "recipe": RECIPE,
    "pruning": {"rate": 0.5, "rounds": 1},
}


def _elth(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def _said(*words: object) -> str:
    done = _elth(*words)
    assert done.exit_code == 0, done.exception or done.output
    return done.output


def _refused(*words: object) -> str:
    done = _elth(*words)
    assert done.exit_code != 0
    return str(done.exception) if isinstance(done.exception, ElthError) else done.output


@pytest.fixture(scope="module")
def ticket() -> Ticket:
    """A ticket of 5,000 weights, at iteration 1."""
    rewind, mask = rewind_result().rewind, round_result(5000).mask
    assert rewind is not None
    assert mask is not None
    origin = {"dataset": info("digits").identity(), "start": 1, "history": []}
    return Ticket(
        network=Spec.parse(TINY),
        shape=info("digits").shape,
        rewind=rewind,
        mask=mask,
        origin=origin,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that the first import creates."""
    return tmp_path_factory.mktemp("theirs") / "runs"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, ticket: Ticket) -> Path:
    """A folder with weights and mask as other people keep them, and as a ticket file."""
    folder = tmp_path_factory.mktemp("files")
    torch.save(ticket.rewind, folder / "w.pt")
    torch.save({f"module.{n}": m.float() for n, m in ticket.mask.items()}, folder / "m.pt")
    ticket.save(folder / "t.safetensors")
    return folder


@pytest.fixture(scope="module")
def printed(store: Path, files: Path) -> str:
    """What the import prints."""
    words = ("--weights", files / "w.pt", "--mask", files / "m.pt", "--dataset", "digits")
    assert "Give --iteration" in _refused(*IMPORT, *words, "--store", store)
    return _said(*IMPORT, *words, "--iteration", 1, "--store", store)


@pytest.fixture
def config(tmp_path: Path, printed: str) -> Path:
    """A config with what the import printed in it."""
    told = yaml.safe_load(printed.partition("In a config:\n")[2])
    return write_yaml(tmp_path / "theirs.yaml", {**BASE, **told})


def test_what_is_printed_names_it_in_a_config(printed: str, config: Path, ticket: Ticket) -> None:
    assert re.search(
        rf"put into .+/runs, as {re.escape(TINY)} imported {ticket.digest[:8]}", printed
    )
    found = load(config)
    assert found.tickets["theirs"].model_dump() == {
        "sha256": ticket.digest,
        "iteration": 1,
        "nonzeros": 5000,
    }
    (start,) = [stage for stage in plan.build(found).stages.values() if stage.is_given]
    assert start.key[:12] in printed


def test_a_ticket_file_is_the_same(printed: str, store: Path, files: Path) -> None:
    again = _said("ticket", "import", "--ticket", files / "t.safetensors", "--store", store)
    assert again == printed.replace("put into", "is already in")


def test_it_is_shown_and_exported_as_any_other(
    printed: str, store: Path, ticket: Ticket, tmp_path: Path
) -> None:
    found = re.search(r"\(([0-9a-f]{12})\)", printed)
    assert found is not None
    shown = _said("ticket", "show", found[1], "--store", store)
    assert "5,000 non-zeros" in shown
    assert "dataset digits\ntraining starts at iteration 1\n" in shown
    assert f"imported {ticket.digest}" in shown
    _said("ticket", "export", found[1], "-o", tmp_path / "t.safetensors", "--store", store)
    assert Ticket.load(tmp_path / "t.safetensors").digest == ticket.digest
    assert "whole" in _said("verify", "--store", store)


def test_a_plan_counts_it_and_says_what_a_run_would_refuse(
    config: Path, store: Path, tmp_path: Path, ticket: Ticket
) -> None:
    told = _said("plan", config, "--store", store)
    assert re.search(r"imported +│ +1 │ +1 │ +0", told)
    assert "The grid theirs is new in" in told
    for place in (tmp_path / "none", store):
        more = ["tickets.theirs.iteration=2"] if place == store else []
        told = _said("plan", config, *more, "--store", place)
        (line,) = [one for one in told.splitlines() if one.startswith("elth run would refuse")]
        assert f"lacks the ticket theirs (sha256 {ticket.digest[:12]}, {TINY} on digits" in line
        assert line.endswith("--weights FILE --mask FILE puts it there.")
        if more:
            assert f"and has these tensors as {TINY} on digits, iteration 1, 5,000 non" in line


def test_a_run_refuses_before_anything_starts(
    config: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "run", None)
    found = load(config, ["tickets.theirs.iteration=2"])
    console = Console(file=io.StringIO())
    with pytest.raises(ElthError, match=r"^the store .+ lacks the ticket theirs .+ puts it there$"):
        driver.execute(found, plan.build(found), Store.of(store), console, retry_failed=False)


def test_the_doctor_looks_for_it(config: Path, store: Path, tmp_path: Path) -> None:
    (well,) = check_tickets(load(config), Store.of(store))
    assert well.is_well
    (wrong,) = check_tickets(load(config), Store.of(tmp_path / "none"))
    assert wrong.what.startswith("the store ")
    assert wrong.do.startswith("elth ticket import --network ")
    (looked_at,) = arithmetic.trained(plan.build(load(config)).stages.values())
    assert looked_at["network"] == TINY


def test_it_leaves_by_its_own_command_alone(store: Path, printed: str) -> None:
    assert "stays" not in _said("gc", "--dry-run", "--older-than", "0h", "--store", store)
    told = _said("gc", "--tickets", "--dry-run", "--store", store)
    assert "1 imported tickets that no grid uses" in told
    assert f"    {TINY} imported " in told
    assert "not both" in _refused("gc", "--tickets", "--weights", "x", "--store", store)
    assert "1 are in the trash" in _said("gc", "--tickets", "--store", store)
    assert "0 imported tickets" in _said("gc", "--tickets", "--store", store)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--network", TINY], "give --network and --weights, or --ticket"),
        (["--network", TINY, "--weights", "w.pt"], "Missing option '--dataset'"),
        (["--ticket", "t.safetensors", "--mask", "m.pt"], "give it alone"),
        (["--ticket", "t.safetensors", "-o", "x", "--store", "y"], "not both"),
        (["--ticket", "t.safetensors", "--dataset", "cifar10"], "the ticket is for "),
    ],
)
def test_words_that_do_not_go_together(
    words: list[str], text: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    assert text in _refused("ticket", "import", *words)
