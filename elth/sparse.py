"""Training a sparse network from the start, with a mask that no search has found."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from elth import masks
from elth.counts import iterations_per_epoch, kept_at
from elth.data import Dataset
from elth.dynamic import Evolution
from elth.dynamic import method as method_of
from elth.errors import ElthError
from elth.networks import Anatomy, build, check_module
from elth.parallel import Group
from elth.recipes import Recipe, named
from elth.specs import Spec
from elth.streams import COMMON, Noise, stream
from elth.tensors import contiguous
from elth.training import Training, engine_for


def train_sparse(
    network: str | Spec | nn.Module,
    data: Dataset,
    recipe: str | Recipe,
    method: str = "rigl",
    *,
    sparsity: float | str | None = None,
    kept: int | None = None,
    seed: int = 0,
    state: Mapping[str, Tensor] | None = None,
    start: int = 0,
    compile: bool = False,
    group: Group | None = None,
    noise: Noise = COMMON,
    **settings: Any,
) -> Training:
    """Train with a mask that changes: RigL, SET, SNFS, GMP, DPF; or with one that is drawn.

    Iterate over the result, which gives its epochs, or let it ``run()``::

        training = elth.train_sparse("resnet20", data, "cifar10_resnet", "rigl", sparsity=0.9)
        print(training.run().test_accuracy, training.evolution.mask)

    For five times as long: ``elth.RECIPES["cifar10_resnet"].stretched(5)``.

    Args:
        network: a network of ``elth`` or ``module:function``, with its options; or any module of
            PyTorch, whose weights are then the initial ones, and which is left as it is.
        data: the dataset, on the device to train on.
        recipe: how to train, or the name of one of ``RECIPES``.
        method: one of ``elth.dynamic.METHODS``.
        sparsity: fraction of the prunable weights that are zero at the end; above 0, but for
            ``static``.
        kept: instead of it, how many weights there are at the end.
        seed: fixes initial weights, the mask that is drawn, data order and augmentation.
        state: weights to start from in place of initial ones, as those of a rewind point.
        start: iteration to start at, where ``state`` is of a later one than 0.
        compile: compile the network first, which takes a minute and pays for long trainings.
        group: the workers that train it together (``elth.parallel``), each of which calls this.
        noise: another order and augmentation than those of the seed alone.
        settings: of the method, by name (``elth.dynamic.defaults``), as ``every="50it"``.

    Raises:
        ElthError: not one of ``sparsity`` and ``kept`` is given, the count is impossible, there is
            no such method or setting, or as ``Training``.
    """
    recipe, one = named(recipe), method_of(method, settings)
    shape = data.info.shape
    if isinstance(network, nn.Module):
        check_module(network, shape)
        made = copy.deepcopy(network)
        initial: Mapping[str, Tensor] = contiguous(made.state_dict())
    else:
        made = build(network, shape, generator=stream(0, "init"))
        initial = build(network, shape, seed).state_dict()
    dense = masks.ones(made)
    if (sparsity is None) == (kept is None):
        raise ElthError(
            "say how many weights there are at the end: either sparsity, as 0.9, or kept"
        )
    if kept is None:
        if sparsity is None or not 0 <= float(sparsity) < 1:
            raise ElthError(f"sparsity must be at least 0 and below 1, as 0.9; found {sparsity!r}")
        kept = kept_at(sparsity, masks.total(dense))
    anatomy = getattr(made, "anatomy", None)
    per_epoch = iterations_per_epoch(len(data.train_labels), recipe)
    evolution = Evolution(
        one,
        {name: tuple(mask.shape) for name, mask in dense.items()},
        kept,
        length=recipe.length.iterations(per_epoch),
        per_epoch=per_epoch,
        start=start,
        unpruned=anatomy.unpruned if isinstance(anatomy, Anatomy) else (),
        seed=seed,
        noise=noise,
    )
    return Training(
        engine_for(made, data, recipe, compile=compile, group=group),
        data,
        recipe,
        seed=seed,
        state=initial if state is None else state,
        start=start,
        noise=noise,
        evolution=evolution,
    )
