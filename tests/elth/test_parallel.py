"""What several workers share a batch by; ``tests/e2e/test_parallel.py`` runs them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from elth.data import Part
from elth.data import load as load_dataset
from elth.errors import ElthError
from elth.parallel import group
from tests.e2e import parallel_worker as worker


def test_what_batch_normalisation_looks_at_matters() -> None:
    data, spec = load_dataset("digits"), "resnet14(width=2)"
    found = {
        unit: worker.losses(
            worker.training(spec, data, worker.recipe(batch_norm_group=unit), None, stop=3)
        )
        for unit in (0, 16, 64)
    }
    assert found[0] == pytest.approx(found[64], rel=1e-9)
    assert found[0] != pytest.approx(found[16], rel=1e-3)


@pytest.mark.parametrize(
    ("workers", "fields", "message"),
    [
        (3, {}, "a batch of 64 images cannot be divided evenly among 3 workers"),
        (4, {"batch_norm_group": 32}, "take at most 2 workers, a divisor of 2"),
    ],
)
def test_a_number_of_workers_that_does_not_fit_the_recipe(
    workers: int, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ElthError, match=message):
        worker.recipe(**fields).check_division(workers)


def test_a_process_that_nothing_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ElthError, match="no RANK, WORLD_SIZE, MASTER_ADDR .* start it with torch"):
        group().__enter__()


@pytest.mark.parametrize("unit", [1, 4])
@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [1, 3, 16, 17])
def test_parts_are_the_batch(size: int, workers: int, unit: int) -> None:
    batch = torch.arange(size)
    parts = [Part(rank, workers, unit).of(batch) for rank in range(workers)]
    assert torch.equal(torch.cat(parts), batch)
    assert all(int(part[0]) % unit == 0 for part in parts if len(part))
    assert max(map(len, parts)) - min(map(len, parts)) <= 2 * unit - 1
