"""A training that goes on from a checkpoint: the same bits as one that was never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from elth import masks, training
from elth.checkpoints import Checkpoint
from elth.data import Dataset
from elth.engine import Engine
from elth.errors import ElthError
from elth.networks import DataShape, build
from elth.recipes import Recipe, Step
from elth.streams import stream
from elth.tensors import read_tensors, write_tensors
from elth.training import Epoch, Training
from tests.elth.helpers import dataset

SHAPE = DataShape(channels=2, size=8, classes=3)
ABOUT = {"key": "abc", "history": [[1, 0.5]]}


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint may be taken after every second iteration."""
    torch.set_num_threads(1)
    monkeypatch.setattr(training, "_CHECK_EVERY", 2)


def _data() -> Dataset:
    return dataset(22, shape=SHAPE, mean=128, deviation=64)


def _recipe(**fields: Any) -> Recipe:
    values = {"length": Step(3, "ep"), "rewind": Step(0, "ep"), "batch_size": 4, **fields}
    return Recipe(**values)


def _start(spec: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    network = build(spec, SHAPE, generator=stream(0, "init"))
    mask = {
        name: torch.rand(m.shape, generator=stream(1, "mask")) < 0.5
        for name, m in masks.ones(network).items()
    }
    return {name: t.clone() for name, t in network.state_dict().items()}, mask


def _training(spec: str, recipe: Recipe, **changes: Any) -> Training:
    state, mask = _start(spec)
    network = build(spec, SHAPE, generator=stream(5, "init"))
    return Training(network, _data(), recipe, seed=3, state=state, mask=mask, **changes)


def _same(a: Training, b: Training) -> bool:
    first, second = a.state(), b.state()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"momentum": 0.0},
        {"optimiser": "adam", "lr": 1e-3},
        {"augment": "crop_flip", "milestones": (Step(1, "ep"),)},
    ],
    ids=str,
)
@pytest.mark.parametrize("spec", ["resnet14(width=2)", "mlp2(width=6,last_width=4)"])
def test_it_goes_on_bit_for_bit_from_anywhere(
    spec: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    recipe = _recipe(**fields)
    taken: list[tuple[Path, int]] = []  # with the number of epochs told by then
    told: list[Epoch] = []

    def keep(run: Training) -> None:
        path = tmp_path / f"{len(taken)}.safetensors"
        run.checkpoint().write(path, ABOUT)
        taken.append((path, len(told)))

    whole = _training(spec, recipe, at_check=keep)
    for epoch in whole:
        told.append(epoch)
        keep(whole)
    assert [Checkpoint.read(path)[0].step for path, _ in taken] == [
        2, 4, 6, 8, 10, 12, 14, 16, 18
    ]  # fmt: skip
    engine: Any = build(spec, SHAPE, generator=stream(6, "init"))
    engine = Engine(engine, recipe)  # one for all, as in a worker
    state, mask = _start(spec)
    for path, before in taken:
        checkpoint, about = Checkpoint.read(path)
        assert about == ABOUT
        again = Training(engine, _data(), recipe, seed=3, state=state, mask=mask)
        again.resume(checkpoint)
        assert list(again) == told[before:]
        assert _same(again, whole)


def test_a_checkpoint_is_taken_within_epochs_only() -> None:
    steps: list[int] = []
    run = _training(
        "mlp2(width=6)", _recipe(), at_check=lambda run: steps.append(run.step), stop=16
    )
    list(run)
    assert steps == [2, 4, 8, 10, 14]  # six iterations an epoch; 16 is the end


def test_a_long_while_is_no_longer_than_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_CHECK_EVERY", 100)
    monkeypatch.setattr(training, "_CHECK_SECONDS", -1.0)
    steps: list[int] = []
    often = _training(
        "mlp2(width=6)", _recipe(), at_check=lambda run: steps.append(run.step), stop=9
    )
    told = list(often)
    assert steps == [1, 2, 3, 4, 5, 7, 8]
    monkeypatch.setattr(training, "_CHECK_SECONDS", 1e9)
    assert told == list(_training("mlp2(width=6)", _recipe(), stop=9))


def test_one_of_another_training_is_refused(tmp_path: Path) -> None:
    recipe = _recipe()
    run = _training("resnet14(width=2)", recipe, stop=4)
    list(run)
    checkpoint = run.checkpoint()
    with pytest.raises(ElthError, match="of iteration 4, and this training goes from 0 to 3"):
        _training("resnet14(width=2)", recipe, stop=3).resume(checkpoint)
    with pytest.raises(ElthError, match="of iteration 4, and this training goes from 5 to 18"):
        _training("resnet14(width=2)", recipe, start=5).resume(checkpoint)
    with pytest.raises(ElthError, match="another network: 'bn1.bias' .* of shape 3, found 2"):
        _training("resnet14(width=3)", recipe).resume(checkpoint)
    with pytest.raises(ElthError, match="another network: .* should be of shape .*, found nothing"):
        _training("resnet20(width=2)", recipe).resume(checkpoint)


def test_a_file_that_is_not_whole_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    run = _training("mlp2(width=6)", _recipe(), stop=4)
    list(run)
    run.checkpoint().write(path, ABOUT)
    good = path.read_bytes()
    for place in (len(good) - 1, len(good) // 2):
        flipped = bytearray(good)
        flipped[place] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(ElthError, match="is damaged: its checksum"):
            Checkpoint.read(path)
    path.write_bytes(good[:-1])
    with pytest.raises(ElthError, match="no whole safetensors file"):
        Checkpoint.read(path)
    path.write_bytes(good)
    tensors, metadata = read_tensors(path, kind="checkpoint")
    for change in ({"step": None}, {"loss": "x"}, {"about": 3}):
        write_tensors(path, tensors, {**metadata, **change})
        with pytest.raises(ElthError, match="is a checkpoint of another version"):
            Checkpoint.read(path)
