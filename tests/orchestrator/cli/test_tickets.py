"""``elth ticket``: what is exported, imported, shown and moved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from elth.tickets import Ticket
from tests.orchestrator.cli.helpers import Elth, files_of, refused, table_of
from tests.orchestrator.helpers import (
    TINY,
    TINY_DEEPER,
    Finished,
    of_kind,
    round_of,
)


@pytest.fixture
def exported(elth: Elth, finished: Finished, tmp_path: Path) -> Path:
    """The ticket of the last round, as a file."""
    key = round_of(finished.plan, TINY, 2).key
    path = tmp_path / "ticket.safetensors"
    assert elth("ticket", "export", key[:10], "-o", path, "--store", finished.store).code == 0
    return path


def test_export_by_key_and_by_run(elth: Elth, finished: Finished, exported: Path) -> None:
    ticket = Ticket.load(exported)
    stage = round_of(finished.plan, TINY, 2)
    _, result = finished.tracker.load(stage.key)
    assert result.mask is not None
    assert all(ticket.mask[name].equal(mask) for name, mask in result.mask.items())
    assert ticket.nonzeros == 11_012 // 4
    run = finished.tracker.run_of(stage.key)
    assert run is not None
    done = elth("ticket", "export", run.info.run_id, "--store", finished.store)
    name = f"resnet14-width-4-{run.info.run_id[:8]}.safetensors"
    assert done.out.splitlines()[-1] == f"wrote {name}"
    assert Path(name).read_bytes() == exported.read_bytes()


def test_every_ticket_of_a_store_can_be_exported_and_is_the_one_that_was_trained(
    elth: Elth, finished: Finished, tmp_path: Path
) -> None:
    for stage in [*of_kind(finished.plan, "retraining")[:4], round_of(finished.plan, TINY, 0)]:
        path = tmp_path / "one.safetensors"
        done = elth("ticket", "export", stage.key, "-o", path, "--store", finished.store)
        assert done.code == 0
        _, result = finished.tracker.load(stage.key)
        assert result.mask is not None
        ticket = Ticket.load(path)
        assert all(ticket.mask[name].equal(mask) for name, mask in result.mask.items())
        assert str(ticket.network) == stage.params["network"]


def test_weights_of_somebody_else_become_a_ticket(
    elth: Elth, exported: Path, tmp_path: Path
) -> None:
    ticket = Ticket.load(exported)
    torch.save({"state_dict": ticket.rewind}, tmp_path / "w.pt")
    torch.save({f"module.{n}": m.float() for n, m in ticket.mask.items()}, tmp_path / "m.pt")
    words = ["ticket", "import", "--network", TINY, "--weights", tmp_path / "w.pt"]
    words += ["--dataset", "digits", "--iteration", "21", "-o", tmp_path / "t.safetensors"]
    done = elth(*words, "--mask", tmp_path / "m.pt")
    assert done.code == 0
    assert done.out.splitlines()[-1] == f"wrote {tmp_path / 't.safetensors'}"
    found = Ticket.load(tmp_path / "t.safetensors")
    assert found.origin["start"] == 21
    assert all(found.mask[name].equal(mask) for name, mask in ticket.mask.items())
    assert all(found.rewind[name].equal(tensor) for name, tensor in ticket.rewind.items())
    done = elth(*words)
    assert done.code == 2
    assert done.err.startswith(f"elth: error: {len(ticket.mask)} tensors do not fit {TINY} for ")
    assert "Traceback" not in done.err


def test_a_rewind_point_is_no_ticket(elth: Elth, finished: Finished) -> None:
    key = of_kind(finished.plan, "rewind_point")[0].key[:12]
    done = elth("ticket", "export", key, "--store", finished.store)
    refused(done, f"run {key} is a rewind point, which has no mask; name a round")


def test_a_ticket_that_comes_out_otherwise_is_refused(
    elth: Elth, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    from elth import controls

    stage = next(s for s in of_kind(finished.plan, "retraining") if s.labels["method"] == "random")
    monkeypatch.setattr(controls, "shuffle_layerwise", lambda mask, seed, version: dict(mask))
    done = elth("ticket", "export", stage.key, "--store", finished.store)
    refused(done, "made again, is not the one that was tracked: the store is damaged, or this")


def test_an_export_to_nowhere_is_refused(elth: Elth, finished: Finished) -> None:
    key = round_of(finished.plan, TINY, 1).key
    words = ("ticket", "export", key, "-o", "none/x.safetensors", "--store", finished.store)
    refused(elth(*words), "cannot write none/x.safetensors: No such file or directory")


def test_show_a_file_and_a_run(elth: Elth, finished: Finished, exported: Path) -> None:
    done = elth("ticket", "show", exported)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[:3] == [
        f"{TINY} for 1x8x8 images of 10 classes: 75.00 % sparsity, 2,753 non-zeros of 11,012 "
        "prunable weights",
        "dataset digits, seed 0",
        "  imp_round 2",
    ]
    table = table_of(done.out)
    ticket = Ticket.load(exported)
    kept = int(ticket.mask["layer3.1.conv2.weight"].sum())
    assert table["layer3.1.conv2.weight"] == [
        "16x16x3x3",
        f"{kept:,}",
        f"{100 - 100 * kept / 2304:.2f}",
    ]
    assert len(table) == 1 + len(ticket.mask)
    key = round_of(finished.plan, TINY, 2).key
    assert elth("ticket", "show", key, "--store", finished.store).out == done.out


def test_transform_prints_the_plan_and_the_sparsity(elth: Elth, exported: Path) -> None:
    output = exported.with_name("deeper.safetensors")
    words = ("--to", "resnet32(width=4)", "--plan", "interpolate", "-o", output)
    done = elth("ticket", "transform", exported, *words)
    assert (done.code, done.err) == (0, "")
    after = Ticket.load(output)
    lines = done.out.splitlines()
    assert lines[0] == f"{TINY} -> resnet32(width=4): append"  # of one free unit both are one plan
    stages = [line.split() for line in lines if line.lstrip().startswith("layer")]
    assert [words[0] for words in stages] == ["layer1", "layer2", "layer3"]
    assert all("0 1 -> 0 1 1 1 1 unit 1 4 times" in " ".join(words) for words in stages)
    assert "before: 75.00 % sparsity, 2,753 non-zeros of 11,012" in done.out
    total = sum(mask.numel() for mask in after.mask.values())
    expected = f" after: {100 * after.sparsity:.2f} % sparsity, {after.nonzeros:,} non-zeros of "
    assert f"{expected}{total:,}" in done.out
    assert lines[-1] == f"wrote {output}"
    history = elth("ticket", "show", output).out
    assert "transform append" in history


def test_transform_names_its_file_after_the_target(elth: Elth, exported: Path) -> None:
    assert elth("ticket", "transform", exported, "--to", TINY_DEEPER).code == 0
    name = "ticket-resnet20-width-4.safetensors"
    assert Ticket.load(exported.with_name(name)).network.name == "resnet20"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "resnet21"], "unknown network 'resnet21'; did you mean 'resnet"),
        (["--to", "resnet20"], "cannot fill 'conv1.weight' of resnet20: expected shape (16, 1, 3"),
        (["--to", TINY_DEEPER, "--plan", "drop"], "stage layer1: 'drop' can only squeeze; 2 units"),
        (["--to", TINY_DEEPER, "--plan", "apend"], "unknown plan 'apend'; did you mean 'append'?"),
        (["--to", "mlp2"], "a ticket moves within one family of networks: found cifar-resnet"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_transformation_that_does_not_fit_writes_nothing(
    elth: Elth, exported: Path, words: list[str], message: str
) -> None:
    before = files_of(exported.parent)
    refused(elth("ticket", "transform", exported, *words), message)
    assert files_of(exported.parent) == before
