"""SNIP: the weights stay whose removal would change the loss most (Lee et al. 2019)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Annotated

import torch
from torch import Tensor, nn

from elth.criteria._gradients import (
    Batch,
    Mode,
    Samples,
    finite,
    loss,
    replica,
    required,
    scoring,
    some,
)
from elth.criteria._limits import AtLeast
from elth.criteria._selection import check_count, keep_highest, on_cpu, spared
from elth.errors import ElthError
from elth.masks import Mask
from elth.specs import DataShape
from elth.streams import stream

_LARGEST_BATCH = 128


@scoring
def scores(
    network: nn.Module,
    mask: Mapping[str, Tensor],
    batches: Iterable[Batch],
    *,
    mode: Mode = "eval",
) -> dict[str, Tensor]:
    """Score ``|w * dL/dw|``, which is ``|dL(c * w)/dc|`` at c = 1 (Lee et al. 2019, section 4.1).

    L is the mean cross-entropy over the images of all batches; the network is left as it is.

    Returns:
        For each weight of the mask its scores, on the network's device.

    Raises:
        ElthError: the mask does not fit, there is no batch, or the loss or a score is not finite.
    """
    model, weights = replica(network, mask, mode)
    gradient = [torch.zeros_like(w) for w in weights.values()]
    count = 0
    for batch in some(batches, "snip"):
        part = torch.autograd.grad(
            loss(model, batch, reduction="sum"), list(weights.values()), materialize_grads=True
        )
        gradient = [g + p for g, p in zip(gradient, part, strict=True)]
        count += len(batch[1])
    return finite(
        {
            name: (w.detach() * g / count).abs()
            for (name, w), g in zip(weights.items(), gradient, strict=True)
        },
        "snip",
    )


def prune(
    network: nn.Module,
    mask: Mapping[str, Tensor],
    keep: int,
    *,
    data: Samples | None,
    seed: int,
    shape: DataShape | None = None,
    unpruned: Collection[str] | None = None,
    samples: Annotated[int, AtLeast(0)] = 128,
    mode: Mode = "eval",
) -> Mask:
    """Keep the ``keep`` weights of the highest score over all layers.

    Args:
        network: the network with its weights; it is left as it is.
        mask: what is left so far.
        keep: the number of weights that are left afterwards.
        data: the dataset; its training images are used, not augmented.
        seed: fixes which, by the stream "snip".
        shape: not used.
        unpruned: names of weights that are left whole; None for the anatomy's.
        samples: how many training images, drawn without replacement; 0 for all.
        mode: ``eval``: batch normalisation by the running statistics, as in the authors' code;
            ``train``: by those of the batch. More than 128 images pass in equal batches of no more
            than that.

    Raises:
        ElthError: the count is impossible, the dataset is too small, or as ``scores``.
    """
    data = required(data, "snip")
    mask, whole = on_cpu(mask), spared(network, unpruned)
    check_count(mask, keep, whole)
    size = len(data.train_labels)
    if not 0 <= samples <= size:
        raise ElthError(
            f"the criterion snip asks for {samples:,} training images, the dataset has {size:,}; "
            "ask for no more than that, or for 0 to take all"
        )
    if samples:
        chosen = torch.randperm(size, generator=stream(seed, "snip"))[:samples]
    else:
        chosen = torch.arange(size)
    # Equal parts, as a last batch of one image has no statistics.
    parts = torch.tensor_split(chosen, -(-len(chosen) // _LARGEST_BATCH))
    result = scores(network, mask, (data.sample(part) for part in parts), mode=mode)
    return keep_highest(result, mask, keep, unpruned=whole)
