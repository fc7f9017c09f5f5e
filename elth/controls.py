"""Controls: what is left of a winning ticket when its weights or its mask are drawn anew."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from elth.masks import Mask
from elth.networks import DataShape, NetworkSpec, build
from elth.streams import stream


def reinit(spec: NetworkSpec, shape: DataShape, seed: int) -> dict[str, Tensor]:
    """Fresh weights for the control Reinit (E-LTH, section 4): all tensors, BN included.

    They come from the stream "reinit" of the seed, and so differ from the network's own initial
    weights, which come from the stream "init".
    """
    return build(spec, shape, generator=stream(seed, "reinit")).state_dict()


def shuffle_layerwise(mask: Mapping[str, Tensor], seed: int) -> Mask:
    """Permute each mask within its layer: the control Random (E-LTH, section 4).

    Every layer keeps its number of weights; which ones is drawn from the stream "shuffle".
    """
    generator = stream(seed, "shuffle")
    return {
        name: m.flatten()[torch.randperm(m.numel(), generator=generator)].reshape(m.shape)
        for name, m in mask.items()
    }
