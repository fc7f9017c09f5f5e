"""Experiments: what a YAML file may say, checked in one place.

An experiment names a dataset, seeds, a recipe and a grid. Each entry of the grid is a product: any
of its values may be a list. What is needed on the way (rewind points, rounds) follows from it. A
file may hold profiles of another size under ``scales``; ``scale=smoke`` merges one into the rest.
"""

from orchestrator.experiment.basics import NAME
from orchestrator.experiment.papers import Paper, Printed
from orchestrator.experiment.pruning import Pruning
from orchestrator.experiment.reading import load
from orchestrator.experiment.sections import Cell, Data, Entry, Experiment, Resources

__all__ = [
    "NAME",
    "Cell",
    "Data",
    "Entry",
    "Experiment",
    "Paper",
    "Printed",
    "Pruning",
    "Resources",
    "load",
]
