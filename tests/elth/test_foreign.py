"""Weights and masks of somebody else: what is taken, and all that does not fit, at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from elth import masks
from elth.data import info
from elth.errors import ElthError
from elth.foreign import as_ticket, read_tensors
from elth.networks import build
from elth.streams import stream
from elth.tickets import Ticket

TINY = "resnet14(width=4)"
SHAPE = info("digits").shape

State = dict[str, Any]


@pytest.fixture
def network() -> nn.Module:
    return build(TINY, SHAPE, generator=stream(0, "init"))


@pytest.fixture
def state(network: nn.Module) -> State:
    return dict(network.state_dict())


@pytest.fixture
def mask(network: nn.Module) -> dict[str, Tensor]:
    """Every third weight is pruned."""
    found = masks.ones(network)
    for one in found.values():
        one.reshape(-1)[::3] = False
    return found


def check(ticket: Ticket, state: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> None:
    assert ticket.rewind.keys() == state.keys()
    assert all(ticket.rewind[name].equal(tensor) for name, tensor in state.items())
    assert all(ticket.mask[name].equal(one) for name, one in mask.items())


def _as_it_is(state: State) -> Any:
    return state


def _named(before: str) -> Callable[[State], Any]:
    return lambda state: {before + name: value for name, value in state.items()}


def _in(name: str) -> Callable[[State], Any]:
    return lambda state: {"epoch": 3, name: state, "optimizer": {"lr": 0.1}}


@pytest.mark.parametrize(
    "form",
    [
        _as_it_is,
        _named("module."),
        _named("_orig_mod."),
        _named("module._orig_mod."),
        _named("_orig_mod.module."),
        _in("state_dict"),
        _in("model"),
        lambda state: {"model": {"state_dict": state}},
    ],
)
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_what_people_write_is_read(
    tmp_path: Path,
    state: State,
    mask: dict[str, Tensor],
    form: Callable[[State], Any],
    dtype: torch.dtype,
) -> None:
    torch.save(form(state), tmp_path / "w.pt")
    torch.save(form({name: one.to(dtype) for name, one in mask.items()}), tmp_path / "m.pth")
    read = [read_tensors(tmp_path / name) for name in ("w.pt", "m.pth")]
    check(as_ticket(TINY, SHAPE, *read), state, mask)


def test_safetensors_are_read_by_what_they_are_and_not_by_their_name(
    tmp_path: Path, state: State, mask: dict[str, Tensor]
) -> None:
    safetensors.torch.save_file(state, tmp_path / "w.bin")
    named = {f"{name}_mask": one.to(torch.uint8) for name, one in mask.items()}
    safetensors.torch.save_file(named, tmp_path / "m.bin")
    read = [read_tensors(tmp_path / name) for name in ("w.bin", "m.bin")]
    ticket = as_ticket(TINY, SHAPE, *read, iteration=7, origin={"dataset": {"name": "digits"}})
    check(ticket, state, mask)
    assert ticket.origin == {"history": [], "dataset": {"name": "digits"}, "start": 7}
    ticket.save(tmp_path / "t.safetensors")
    check(Ticket.load(tmp_path / "t.safetensors"), state, mask)


def test_what_torch_prunes_is_weights_and_masks_in_one(
    tmp_path: Path, network: nn.Module, state: State
) -> None:
    names = list(masks.ones(network))
    for name in names:
        module = network.get_submodule(name.rpartition(".")[0])
        prune.l1_unstructured(module, "weight", amount=0.4)
    torch.save(network.state_dict(), tmp_path / "pruned.pt")
    ticket = as_ticket(TINY, SHAPE, read_tensors(tmp_path / "pruned.pt"))
    expected = {name: network.get_buffer(f"{name}_mask").bool() for name in names}
    check(ticket, state, expected)
    assert 0.39 < ticket.sparsity < 0.41
    told = refused(as_ticket, TINY, SHAPE, read_tensors(tmp_path / "pruned.pt"), expected)
    assert told[1].startswith("masks: expected one of each, found")


def test_old_files_without_counters_are_read(state: State, mask: dict[str, Tensor]) -> None:
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    check(as_ticket(TINY, SHAPE, old, mask), state, mask)


def test_masks_of_ones_of_what_is_never_pruned_are_no_loss(
    state: State, mask: dict[str, Tensor]
) -> None:
    bias = next(name for name in state if name.endswith(".bias"))
    check(as_ticket(TINY, SHAPE, state, mask | {bias: torch.ones_like(state[bias])}), state, mask)
    other = torch.ones_like(state[bias])
    other[0] = 0
    told = refused(as_ticket, TINY, SHAPE, state, mask | {bias: other})
    assert told[1:] == [f"mask of {bias}: expected all ones, as it is never pruned, found others"]


def refused(make: Callable[..., Any], *words: Any) -> list[str]:
    """The lines of a refusal."""
    with pytest.raises(ElthError) as caught:
        make(*words)
    return [line.strip() for line in str(caught.value).splitlines()]


def test_all_that_does_not_fit_is_listed_at_once(state: State, mask: dict[str, Tensor]) -> None:
    names = list(mask)
    first, second, third, fourth = names[:4]
    shape = tuple(state[first].shape)
    del state[first]
    state[second] = state[second].double()
    state[third] = state[third][..., :1]
    state[fourth] = state[fourth].clone()
    state[fourth].view(-1)[:2] = torch.tensor([float("nan"), float("inf")])
    state["extra.weight"] = torch.zeros(2)
    state["step"] = 7
    del mask[first]
    off: dict[str, Tensor] = {**mask, second: mask[second].float()}
    off[second].view(-1)[4:6] = torch.tensor([0.5, float("nan")])
    off[third] = mask[third][..., :1]
    off["other.weight"] = torch.ones(1)
    told = refused(as_ticket, TINY, SHAPE, state, off)
    assert told[0] == f"10 tensors do not fit {TINY} for {SHAPE}:"
    assert sorted(told[1:]) == sorted(
        [
            f"{first}: expected float32 {shape}, found nothing",
            f"{second}: expected float32 {tuple(mask[second].shape)}, "
            f"found float64 {tuple(mask[second].shape)}",
            f"{third}: expected float32 {tuple(mask[third].shape)}, "
            f"found float32 {tuple(off[third].shape)}",
            f"{fourth}: expected finite values, found 2 that are NaN or infinite",
            "extra.weight: expected nothing of this name, found float32 (2,)",
            "step: expected nothing of this name, found a int",
            f"mask of {first}: expected 0 and 1 of {shape}, found none",
            f"mask of {second}: expected 0 and 1, found 2 other values, as 0.5",
            f"mask of {third}: expected 0 and 1 of {tuple(mask[third].shape)}, "
            f"found bool {tuple(off[third].shape)}",
            "mask of other.weight: expected nothing of this name, found float32 (1,)",
        ]
    )


def test_without_any_mask_each_is_missing(state: State, mask: dict[str, Tensor]) -> None:
    told = refused(as_ticket, TINY, SHAPE, state)
    assert len(told) == 1 + len(mask)
    assert all("found none" in line for line in told[1:])


class Evil:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (Path.touch, (Path("executed"),))  # type: ignore[return-value]


def test_code_in_a_file_is_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: nn.Module
) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (Evil(), network):
        torch.save(content, tmp_path / "evil.pt")
        told = refused(read_tensors, tmp_path / "evil.pt")
        assert "holds more than tensors, and code in it is not executed" in told[0]
        assert "torch.save(model.state_dict(), FILE)" in told[0]
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\3\4" + bytes(99), b"\x80\2K\1."])
def test_other_files_are_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    told = refused(read_tensors, tmp_path / "x.pt")
    assert len(told) == 1
    assert "x.pt" in told[0]


def test_what_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "x.pt")
    assert "holds a list: expected a state dict" in refused(read_tensors, tmp_path / "x.pt")[0]
    torch.save({"module.a": torch.ones(1), "a": torch.ones(1)}, tmp_path / "x.pt")
    assert "holds 'a' twice" in refused(read_tensors, tmp_path / "x.pt")[0]
    assert "cannot read" in refused(read_tensors, tmp_path / "none.pt")[0]
