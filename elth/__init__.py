"""The science of elastic lottery tickets: networks, masks, tickets, transformations, training.

This package knows tensors and nothing of clusters, trackers or configuration files; it runs
wherever PyTorch does. A ticket is found by training and pruning, and moved by a plan::

    import elth

    data = elth.load_dataset("digits")
    recipe = elth.RECIPES["digits_resnet"]
    ticket = elth.Ticket.load("resnet14.safetensors")
    deeper = elth.transform(ticket, "resnet20", "append")
    for epoch in elth.train_ticket(deeper, data, recipe, seed=0):
        print(epoch.epoch, epoch.test_accuracy)
"""

from elth.data import DATASETS, Dataset
from elth.data import load as load_dataset
from elth.elastic import Plan, explain, transform
from elth.errors import ElthError
from elth.networks import NETWORKS, Anatomy, DataShape, Network, NetworkSpec
from elth.networks import build as build_network
from elth.recipes import RECIPES, Recipe, Step
from elth.tickets import Ticket
from elth.training import Epoch, NonFiniteLossError, Training, train_ticket

__all__ = [
    "DATASETS",
    "NETWORKS",
    "RECIPES",
    "Anatomy",
    "DataShape",
    "Dataset",
    "ElthError",
    "Epoch",
    "Network",
    "NetworkSpec",
    "NonFiniteLossError",
    "Plan",
    "Recipe",
    "Step",
    "Ticket",
    "Training",
    "build_network",
    "explain",
    "load_dataset",
    "train_ticket",
    "transform",
]
