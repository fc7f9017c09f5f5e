"""What a finished stage leaves, and its files."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from elth import masks
from elth.errors import ElthError
from elth.masks import Mask
from elth.networks import blueprint, check_state, prunable
from elth.specs import Spec
from elth.tensors import read_tensors, write_tensors
from elth.tickets import state_digest
from orchestrator.plan.outside import check_code
from orchestrator.plan.stage import ANALYSIS, Stage, shape_of
from orchestrator.store.files import TRAINED, told_by
from orchestrator.store.measured import MEASURED, digest, read_measured, write_measured

State = dict[str, Tensor]

_BEFORE = {
    "rewind_point": ("rewind.safetensors",),
    "round": ("mask.safetensors", TRAINED),
    "retraining": ("mask.safetensors",),
}
"""What stages left before runs told of it."""


OPTIONAL = (TRAINED,)
"""Files without which a result can be read: that part of it is None then."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished stage leaves.

    A rewind point its weights, an analysis what it measured, all others a mask and weights; of a
    sparse training both are those of its end. An
    imported ticket has mask and rewind point, as it is what rounds start from and go back to.
    """

    rewind: State | None = None
    mask: Mask | None = None
    trained: State | None = None
    """Trained weights, pruned ones exactly zero."""
    measured: Mapping[str, Any] | None = None
    """What an analysis came to, as JSON values."""

    @functools.cached_property
    def nbytes(self) -> int:
        """Bytes of its tensors in memory."""
        states = (state for state in (self.rewind, self.mask, self.trained) if state is not None)
        return sum(tensor.nbytes for state in states for tensor in state.values())

    @property
    def kept(self) -> State | None:
        """The trained weights without those that the mask prunes, each then a list of values."""
        if self.trained is None or self.mask is None:
            return None
        return {
            name: tensor[self.mask[name]] if name in self.mask else tensor
            for name, tensor in self.trained.items()
        }

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """sha256 of each part, by its name, as in the metadata of its file."""
        parts = {"rewind": self.rewind, "trained": self.kept}
        digests = {name: state_digest(part) for name, part in parts.items() if part is not None}
        if self.measured is not None:
            digests["measured"] = digest(self.measured)
        return digests | ({} if self.mask is None else {"mask": masks.digest(self.mask)})


def write(result: Result, folder: Path, *, keep_weights: bool) -> None:
    """Write a result as files: rewind point whole, mask as bits, of trained weights the non-zeros.

    Args:
        result: what to write.
        folder: where to; it exists.
        keep_weights: whether trained weights are written.
    """
    sums = result.digests
    if result.rewind is not None:
        _write(folder / "rewind.safetensors", result.rewind, "rewind point", sums["rewind"])
    if result.mask is not None:
        _write(folder / "mask.safetensors", masks.pack(result.mask), "mask", sums["mask"])
    if result.measured is not None:
        write_measured(result.measured, folder)
    kept = result.kept if keep_weights else None
    if kept is not None:
        _write(folder / TRAINED, kept, "trained weights", sums["trained"])


def told(folder: Path) -> str:
    """What the tag ``elth.files`` says of a result that was written."""
    return json.dumps({path.name: path.stat().st_size for path in sorted(folder.iterdir())})


def files_of(stage: Stage, tags: Mapping[str, str]) -> dict[str, int | None]:
    """The files that the result of a finished stage has, and their sizes where they are known.

    Args:
        stage: the stage.
        tags: those of its run.
    """
    found = told_by(tags)
    return dict.fromkeys(_BEFORE.get(stage.kind, ())) if found is None else {**found}


def _write(path: Path, state: State, kind: str, sha256: str) -> None:
    write_tensors(path, state, {"kind": kind, "sha256": sha256})


def _read(path: Path, kind: str) -> State:
    state, metadata = read_tensors(path, kind=kind)
    if metadata.get("sha256") != state_digest(state):
        raise ElthError(f"{path} is damaged: its checksum is not that of its content")
    return state


def read(stage: Stage, folder: Path) -> Result:
    """Read what ``write`` wrote; what was not written is None.

    Raises:
        ElthError: a file is damaged, or does not fit the stage's network.
        CodeError: what it was made by is not here, so it cannot be told.
    """
    if stage.kind == ANALYSIS:  # what was measured is read where the network's code is not
        return Result(measured=read_measured(folder / MEASURED))
    check_code(stage)
    spec, shape = Spec.parse(stage.params["network"]), shape_of(stage)
    rewind = None
    if stage.kind == "rewind_point" or stage.is_given:
        rewind = _read(folder / "rewind.safetensors", "rewind point")
        check_state(rewind, spec, shape, what="rewind point")
    if stage.kind == "rewind_point":
        return Result(rewind=rewind)
    network = blueprint(spec, shape)
    path = folder / "mask.safetensors"
    packed, metadata = read_tensors(path, kind="mask")
    mask = masks.unpack(
        packed, {name: network.get_parameter(name).shape for name in prunable(network)}
    )
    if metadata.get("sha256") != masks.digest(mask):
        raise ElthError(f"{path} is damaged: its checksum is not that of its content")
    trained = None
    if (folder / TRAINED).exists():
        kept = _read(folder / TRAINED, "trained weights")
        trained = {}
        for name, tensor in network.state_dict().items():
            if name not in kept:
                raise ElthError(f"{folder}/{TRAINED} lacks '{name}'")
            if name in mask:
                whole = kept[name].new_zeros(tensor.shape)
                if kept[name].numel() != int(mask[name].sum()):
                    raise ElthError(
                        f"{folder}/{TRAINED}: '{name}' should hold "
                        f"{int(mask[name].sum())} non-zeros, found {kept[name].numel()}"
                    )
                whole[mask[name]] = kept[name]
                trained[name] = whole
            else:
                trained[name] = kept[name]
        check_state(trained, spec, shape, what="trained weights")
    return Result(rewind=rewind, mask=mask, trained=trained)
