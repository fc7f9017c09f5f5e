"""One place sets the arithmetic of a GPU, for all that computes, and puts back what it found."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from elth import criteria, precision
from elth.criteria import _gradients
from elth.masks import ones, total
from elth.networks import DataShape, build
from elth.precision import computing
from elth.streams import stream
from tests.elth.helpers import dataset

GPU, CPU = torch.device("cuda"), torch.device("cpu")
SHAPE = DataShape(channels=1, size=4, classes=3)


def _now() -> tuple[Any, ...]:
    cudnn: Any = torch.backends.cudnn
    matmul: Any = torch.backends.cuda.matmul
    return (cudnn.conv.fp32_precision, matmul.fp32_precision, cudnn.deterministic, cudnn.benchmark)


@pytest.fixture(autouse=True)
def _left_as_found() -> Any:
    """Settings of the process, which these tests change."""
    before = _now()
    yield
    assert _now() == before


@pytest.mark.parametrize(
    ("kind", "expected"), [("float32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")]
)
def test_both_products_are_set(kind: str, expected: str) -> None:
    """A fresh process has TF32 in convolutions and IEEE in matrix products."""
    with computing(kind, GPU):
        assert _now() == (expected, expected, True, False)
        with computing("float32", GPU):
            assert _now()[:2] == ("ieee", "ieee")
        assert _now()[:2] == (expected, expected)


def test_what_was_found_is_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = _now()
    with pytest.raises(ZeroDivisionError), computing("tf32", GPU):
        raise ZeroDivisionError
    assert _now() == before
    monkeypatch.undo()


def test_older_functions_of_pytorch_work_as_before() -> None:
    """They raise where the newer settings disagree among themselves, as they did after training."""
    older = (
        lambda: torch.backends.cudnn.allow_tf32,
        lambda: torch.backends.cuda.matmul.allow_tf32,
        torch.get_float32_matmul_precision,
    )
    before = [ask() for ask in older]
    for kind in ("float32", "tf32"):
        with computing(kind, GPU):
            pass
        assert [ask() for ask in older] == before


def test_nothing_is_set_for_a_processor() -> None:
    before = _now()
    with computing("tf32", CPU):
        assert _now() == before


def test_criteria_compute_in_float32_whatever_was_trained_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every score goes through ``scoring``; on a GPU it would have these settings."""
    seen: list[str] = []

    def as_if_on_a_gpu(kind: str, device: torch.device) -> Any:
        seen.append(kind)
        return computing(kind, GPU)

    monkeypatch.setattr(_gradients, "computing", as_if_on_a_gpu)
    network = build("resnet14(width=2)", SHAPE, generator=stream(0, "init"))
    scored = _gradients.scoring(lambda network: _now())
    assert scored(network) == ("ieee", "ieee", True, False)
    assert seen == ["float32"]
    with precision.computing("tf32", GPU):
        assert scored(network)[:2] == ("ieee", "ieee")


@pytest.mark.parametrize("name", ["snip", "grasp", "synflow"])
def test_every_criterion_that_differentiates_does(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def noted(kind: str, device: torch.device) -> Any:
        seen.append(kind)
        return computing(kind, device)

    monkeypatch.setattr(_gradients, "computing", noted)
    network = build("resnet14(width=2)", SHAPE, generator=stream(0, "init"))
    settings: dict[str, Any] = {"samples_per_class": 4} if name == "grasp" else {}
    settings |= {"samples": 8} if name == "snip" else {}
    mask = ones(network)
    data = dataset(40, shape=SHAPE)
    keep = total(mask) // 2
    criteria.prune(name, network, mask, keep, shape=SHAPE, data=data, seed=0, **settings)
    assert set(seen) == {"float32"}
