"""The science of elastic lottery tickets: networks, masks, tickets, transformations, training.

This package knows tensors and nothing of clusters, trackers or configuration files; it runs
wherever PyTorch does. A ticket is found by training and pruning, and moved by a plan::

    import elth

    data = elth.load_dataset("digits")
    for round in elth.imp("resnet14", data, "digits_resnet", rate=0.36, rounds=4):
        print(round)
    deeper = elth.transform(round.ticket, "resnet20", "append")
    elth.train_ticket(deeper, data, "digits_resnet").run()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elth._lazy import lazily

if TYPE_CHECKING:
    from elth.criteria import CRITERIA
    from elth.data import DATASETS, Dataset, dataset
    from elth.data import load as load_dataset
    from elth.elastic import Plan, change_width, explain, move, transform
    from elth.engine import Engine
    from elth.errors import ElthError
    from elth.networks import NETWORKS, Anatomy, Network, with_anatomy
    from elth.networks import build as build_network
    from elth.plugins import version
    from elth.recipes import RECIPES, Recipe, Step
    from elth.repulsion import Repulsion
    from elth.rounds import Round, imp
    from elth.sparse import train_sparse
    from elth.specs import DataShape, Spec
    from elth.streams import Noise
    from elth.tickets import Ticket
    from elth.training import Epoch, NonFiniteLossError, Training, train_ticket
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "elth.criteria": ("CRITERIA",),
            "elth.data": ("DATASETS", "Dataset", "dataset", "load as load_dataset"),
            "elth.elastic": ("Plan", "change_width", "explain", "move", "transform"),
            "elth.engine": ("Engine",),
            "elth.errors": ("ElthError",),
            "elth.networks": (
                "NETWORKS",
                "Anatomy",
                "Network",
                "build as build_network",
                "with_anatomy",
            ),
            "elth.plugins": ("version",),
            "elth.recipes": ("RECIPES", "Recipe", "Step"),
            "elth.repulsion": ("Repulsion",),
            "elth.rounds": ("Round", "imp"),
            "elth.sparse": ("train_sparse",),
            "elth.specs": ("DataShape", "Spec"),
            "elth.streams": ("Noise",),
            "elth.tickets": ("Ticket",),
            "elth.training": ("Epoch", "NonFiniteLossError", "Training", "train_ticket"),
        },
    )

__all__ = [
    "CRITERIA",
    "DATASETS",
    "NETWORKS",
    "RECIPES",
    "Anatomy",
    "DataShape",
    "Dataset",
    "ElthError",
    "Engine",
    "Epoch",
    "Network",
    "Noise",
    "NonFiniteLossError",
    "Plan",
    "Recipe",
    "Repulsion",
    "Round",
    "Spec",
    "Step",
    "Ticket",
    "Training",
    "build_network",
    "change_width",
    "dataset",
    "explain",
    "imp",
    "load_dataset",
    "move",
    "train_sparse",
    "train_ticket",
    "transform",
    "version",
    "with_anatomy",
]
