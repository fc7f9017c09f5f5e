"""The plain loop: a masked training as most people write it, to measure against."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from elth.data import Dataset, MemoryDataset
from elth.recipes import Recipe


def epoch_seconds(
    network: nn.Module, data: Dataset, recipe: Recipe, mask: Mapping[str, Tensor], steps: int
) -> float:
    """Seconds of an iteration: a DataLoader, masks in every forward, ``item()`` each step."""
    assert isinstance(data, MemoryDataset)
    images = data.train_images.float()
    images = (images - data.info.mean[0]) / data.info.deviation[0]
    loader = DataLoader(
        TensorDataset(images, data.train_labels), batch_size=recipe.batch_size, shuffle=True
    )
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        foreach=False,
        fused=False,
    )
    network.train()
    done, began, losses = 0, time.perf_counter(), 0.0
    while done < steps:
        for x, y in loader:
            parameters = {
                name: p * mask[name] if name in mask else p
                for name, p in network.named_parameters()
            }
            loss = F.cross_entropy(functional_call(network, parameters, (x,)), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses += loss.item()
            done += 1
            if done == steps:
                break
    return (time.perf_counter() - began) / done
