"""Weights and masks in other people's files, as a ticket of a network of ours.

What is read: safetensors; and files of ``torch.save`` with ``weights_only``, so that nothing in
them is executed. A checkpoint's ``state_dict`` or ``model`` is taken out of it; ``module.`` and
``_orig_mod.`` before a name are what ``DataParallel`` and ``torch.compile`` add; ``NAME_orig`` and
``NAME_mask`` are what ``torch.nn.utils.prune`` makes of ``NAME``. All that does not fit is listed
at once, and nothing is guessed: a mask is 0 and 1, a weight finite and of the network's type.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors import SafetensorError
from torch import Tensor

from elth.errors import ElthError
from elth.files import expanded
from elth.networks import blueprint, canonical, prunable
from elth.specs import DataShape, Spec
from elth.tickets import Ticket

_INNER = ("state_dict", "model_state_dict", "model", "net")
"""Where checkpoints hold a state dict."""
_PREFIXES = ("module.", "_orig_mod.")
_COUNTER = "num_batches_tracked"
_PICKLE, _ZIP, _JSON = b"\x80", b"PK", b"{"
"""How files of ``torch.save`` begin, and what stands ninth in one of safetensors."""


def read_tensors(path: str | Path) -> dict[str, Any]:
    """What a file holds, by the names of a network: tensors, and whatever else is among them.

    Args:
        path: a safetensors file, or one of ``torch.save``.

    Raises:
        ElthError: there is no such file, it holds more than tensors and plain values, or two of its
            names are one.
    """
    path = expanded(path)
    try:
        with path.open("rb") as file:
            start = file.read(9)
        if start[8:] != _JSON and start.startswith((_PICKLE, _ZIP)):
            with warnings.catch_warnings():  # of pickle's protocol, which it reads or refuses
                warnings.simplefilter("ignore")
                found = torch.load(path, map_location="cpu", weights_only=True)
        else:
            with safetensors.safe_open(path, framework="pt") as tensors:
                found = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    except pickle.UnpicklingError as error:
        raise ElthError(
            f"{path} holds more than tensors, and code in it is not executed "
            f"({str(error).splitlines()[0]}): write it by torch.save(model.state_dict(), FILE)"
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ElthError(
            f"cannot read {path}: {why}; expected safetensors or a file of torch.save"
        ) from error
    return _plainly(_inner(found, path), path)


def _inner(found: Any, path: Path) -> Mapping[str, Any]:
    """The state dict in what was read."""
    while isinstance(found, Mapping):
        inner = [found[name] for name in _INNER if isinstance(found.get(name), Mapping)]
        if not inner:
            return found
        found = inner[0]
    raise ElthError(
        f"{path} holds a {type(found).__name__}: expected a state dict, or a checkpoint with one "
        f"under {', '.join(_INNER)}"
    )


def _plainly(found: Mapping[str, Any], path: Path) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, value in found.items():
        short = str(name)
        while short.startswith(_PREFIXES):
            short = short.removeprefix(_PREFIXES[0]).removeprefix(_PREFIXES[1])
        if short in plain:
            raise ElthError(f"{path} holds '{short}' twice, once as '{name}'")
        plain[short] = value
    return plain


def as_ticket(
    network: str | Spec,
    shape: DataShape,
    weights: Mapping[str, Any],
    mask: Mapping[str, Any] | None = None,
    *,
    iteration: int | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Ticket:
    """Weights and a mask of somebody else as a ticket.

    Args:
        network: the network that they are of.
        shape: of its images.
        weights: a state dict by names of the network, as ``read_tensors`` gives it.
        mask: 0 and 1 by name of weight, or by that and ``_mask``; None where ``weights`` has
            ``NAME_mask`` beside ``NAME_orig``. For what is never pruned, none or all ones.
        iteration: how far the weights were trained, from where the ticket's training goes on; the
            recipe's rewind point when None.
        origin: where they come from.

    Raises:
        ElthError: something does not fit; all that does not is listed, a line each, with the name
            of the tensor, what was expected and what was found.
    """
    spec = canonical(network)
    plan = blueprint(spec, shape)
    state, masked = _parted(weights)
    told: list[str] = []
    if mask is not None:
        named = {name.removesuffix("_mask"): value for name, value in mask.items()}
        if masked:
            told.append(
                f"masks: expected one of each, found {len(named)} in a file of their own and "
                f"{len(masked)} beside the weights"
            )
        masked = named
    expected = plan.state_dict()
    taken = {name: _weight(name, tensor, state, told) for name, tensor in expected.items()}
    told += [
        f"{name}: expected nothing of this name, found {_kind(value)}"
        for name, value in state.items()
        if name not in expected
    ]
    bits = {name: _bits(name, expected[name], masked, told) for name in prunable(plan)}
    told += _besides(masked, bits, expected)
    if told:
        lines = "\n  ".join(told)
        raise ElthError(f"{len(told)} tensors do not fit {spec} for {shape}:\n  {lines}")
    start = {} if iteration is None else {"start": iteration}
    return Ticket(
        network=spec,
        shape=shape,
        rewind={name: tensor for name, tensor in taken.items() if tensor is not None},
        mask={name: one for name, one in bits.items() if one is not None},
        origin={"history": [], **(origin or {}), **start},
    )


def _parted(weights: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights by their own names, and the masks that stand beside them."""
    state, masked = dict(weights), {}
    for name in weights:
        own = name.removesuffix("_orig")
        if own != name and f"{own}_mask" in weights and own not in weights:
            state[own] = state.pop(name)
            masked[own] = state.pop(f"{own}_mask")
    return state, masked


def _weight(
    name: str, expected: Tensor, state: Mapping[str, Any], told: list[str]
) -> Tensor | None:
    """A tensor of a state dict; None if it does not fit, which is told."""
    found = state.get(name)
    if found is None and name.rpartition(".")[2] == _COUNTER:
        return torch.zeros((), dtype=torch.int64)  # before PyTorch 0.4.1 there was none
    if not isinstance(found, Tensor):
        what = "nothing" if found is None else _kind(found)
        told.append(f"{name}: expected {_kind(expected)}, found {what}")
        return None
    if found.shape != expected.shape or found.dtype != expected.dtype:
        told.append(f"{name}: expected {_kind(expected)}, found {_kind(found)}")
        return None
    wrong = found.numel() - int(found.isfinite().sum())
    if wrong:
        told.append(f"{name}: expected finite values, found {wrong:,} that are NaN or infinite")
        return None
    return found.clone(memory_format=torch.contiguous_format)


def _bits(name: str, expected: Tensor, masked: Mapping[str, Any], told: list[str]) -> Tensor | None:
    """The mask of a weight; None if it does not fit, which is told."""
    found = masked.get(name)
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        what = "none" if found is None else _kind(found)
        told.append(f"mask of {name}: expected 0 and 1 of {tuple(expected.shape)}, found {what}")
        return None
    other = found[(found != 0) & (found != 1)]  # NaN is neither
    if other.numel():
        told.append(
            f"mask of {name}: expected 0 and 1, found {other.numel():,} other values, as "
            f"{other.reshape(-1)[0].item():g}"
        )
        return None
    return found.to(torch.bool)


def _besides(
    masked: Mapping[str, Any], bits: Mapping[str, Any], expected: Mapping[str, Tensor]
) -> list[str]:
    """What does not fit of masks of what is never pruned: all ones are no loss."""
    told = []
    for name, value in masked.items():
        if name in bits:
            continue
        if name not in expected:
            told.append(f"mask of {name}: expected nothing of this name, found {_kind(value)}")
        elif not isinstance(value, Tensor) or not bool((value == 1).all()):
            told.append(f"mask of {name}: expected all ones, as it is never pruned, found others")
    return told


def _kind(value: Any) -> str:
    """A tensor or another value as messages name it: ``float32 (16, 3, 3, 3)``."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
