"""Stages: what is computed, each known by a key of its meaning.

A stage is a frozen description. Its key hashes what fixes its result: kind, parameters, dataset,
recipe, seed and the keys of its parents, and nothing of where or how it is computed. A stage whose
key is finished in the store is never computed again, whoever asks for it.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from elth import data, ways
from elth.counts import iterations_per_epoch, rewind_step
from elth.data import DatasetInfo, info
from elth.errors import ElthError
from elth.networks import DataShape, version
from elth.recipes import Recipe, Step
from elth.specs import Spec

ANALYSIS = "analysis"
"""The kind of a stage that trains nothing and looks at what others have trained."""
IMPORTED = "imported"
"""The kind that nothing computes: see ``plan.imported``."""
SPARSE = "sparse_training"
"""The kind of a training whose mask is its own, and may change (``elth.dynamic``)."""

VERSIONS = {"rewind_point": 1, "round": 1, "retraining": 1, ANALYSIS: 1, IMPORTED: 1, SPARSE: 1}
"""Raised when a kind comes to mean something else, which gives its stages new keys."""

KINDS = ("rewind_point", "round", "retraining")
"""Those that train something, and that every plan tells of; others are told where there are any."""


VARIANT, NOISE = "variant", "noise"
"""Labels of what is of a variant of the experiment, and of twins."""
MEASURE, LOOKS_AT = "measure", "looks_at"
"""Labels of an analysis: what is measured, and of what, as ``rounds 3 and 4``."""
PAIRED = "pair"
"""Label of an analysis of two networks: of each the axes in which they differ."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One thing to compute."""

    kind: str
    """``rewind_point``, ``round``, ``retraining``, ``sparse_training``, ``analysis`` or
    ``imported``."""
    params: Mapping[str, Any]
    """What fixes the result, as JSON values, beside the parents."""
    parents: tuple[str, ...] = ()
    """Keys of the stages whose results are needed."""
    labels: Mapping[str, Any] = field(compare=False)
    """Axes by which people compare: network, method, source, transform, round, seed, dataset, and
    where it has them variant and noise; of what comes of an imported ticket also that one's name.
    """

    @functools.cached_property
    def key(self) -> str:
        """sha256 of the canonical description, in hexadecimal."""
        text = json.dumps(
            {
                "kind": self.kind,
                "version": VERSIONS[self.kind],
                "params": self.params,
                "parents": self.parents,
            },
            sort_keys=True,
            separators=(",", ":"),
        )
        return hashlib.sha256(text.encode()).hexdigest()

    @functools.cached_property
    def recipe(self) -> Recipe:
        """How it trains."""
        return _recipe(json.dumps(self.params["recipe"]))

    @property
    def is_given(self) -> bool:
        """Whether a person puts it into a store: nothing computes it, and it has no seed."""
        return self.kind == IMPORTED

    @property
    def title(self) -> str:
        """A short name for people, as ``resnet20 <- resnet14 append, round 8, seed 0``."""
        if self.is_given:
            digest, iteration = self.params["sha256"], self.params["iteration"]
            return f"{self.labels['network']} imported {digest[:8]}, iteration {iteration}"
        return title_of(self.labels)

    def describe(self) -> dict[str, Any]:
        """The whole stage as JSON values; ``Stage.of`` undoes it."""
        return {
            "kind": self.kind,
            "params": dict(self.params),
            "parents": list(self.parents),
            "labels": dict(self.labels),
        }

    @staticmethod
    def of(description: Mapping[str, Any]) -> Stage:
        """Read what ``describe`` gave."""
        return Stage(
            kind=description["kind"],
            params=description["params"],
            parents=tuple(description["parents"]),
            labels=description["labels"],
        )


@functools.lru_cache(maxsize=256)
def _recipe(text: str) -> Recipe:
    return Recipe.of(json.loads(text))


def info_of(dataset: str) -> DatasetInfo:
    """What is known of a dataset: of one with a manifest as it is now, of others asked for once.

    Plans have thousands of stages.

    Raises:
        ElthError: as ``elth.data.info``.
    """
    return data.info(dataset) if "manifest=" in dataset else _info_of(dataset)


_info_of = functools.lru_cache(maxsize=256)(data.info)


def iterations(stage: Stage) -> tuple[int, int]:
    """First and last iteration that a stage trains, counted from initialisation.

    An analysis trains none.
    """
    if stage.kind == ANALYSIS:
        return 0, 0
    recipe = stage.recipe
    size = size_of(stage)
    if stage.kind == "rewind_point":
        return 0, rewind_step(size, recipe)
    if any("move" in step for step in stage.params.get("ticket", ())):
        start = 0  # carried to another dataset, a ticket is trained from the beginning
    elif "start" in stage.params:
        start = int(stage.params["start"])  # of an imported ticket, or initialisation
    else:
        start = rewind_step(size, recipe)
    weights = stage.params.get("weights")
    if weights is None:
        return start, recipe.length.iterations(iterations_per_epoch(size, recipe))
    given = stage.params.get("finetune")
    first, last = ways.span(weights, recipe, size, None if given is None else Step.parse(given))
    return start if weights == "trained" else first, last


def is_twin(stage: Stage) -> bool:
    """Whether a stage is another one's training with other noise; no chain goes on from it."""
    return bool(stage.params.get("noise", {}).get("copy"))


@functools.lru_cache(maxsize=4096)
def named(network: str) -> Mapping[str, str]:
    """A network as keys hold it: by its name and, from outside, its version."""
    known = version(Spec.parse(network).name)
    return {"network": network, **({"network_version": known} if known else {})}


def dataset_of(stage: Stage) -> str:
    """The dataset that a stage trains on, as ``elth.data.info`` knows it.

    The key holds its identity; the labels say where that is to be found.
    """
    return str(stage.labels.get("place", stage.labels["dataset"]))


def per_epoch(stage: Stage) -> int:
    """Iterations of an epoch."""
    return iterations_per_epoch(size_of(stage), stage.recipe)


def count_kinds(stages: Iterable[Stage]) -> dict[str, int]:
    """How many stages there are of each kind; of those not in ``KINDS`` only if there is one."""
    counts = dict.fromkeys(KINDS, 0)
    for stage in stages:
        counts[stage.kind] = counts.get(stage.kind, 0) + 1
    return counts


SHAPE, SIZES = "shape", "sizes"
"""Labels by which a stage is read where its dataset is not: channels, side and classes of what a
network is shown, and images in the training part and the other."""


def data_labels(info: DatasetInfo) -> dict[str, Any]:
    """What a stage tells of its dataset; of one of ours the name is enough."""
    if Spec.parse(info.name).name in data.DATASETS and info.name == info.title:
        return {}
    shape = [info.shape.channels, info.shape.size, info.shape.classes]
    place = {"place": info.name} if info.name != info.title else {}
    return {**place, SHAPE: shape, SIZES: [info.train_size, info.test_size]}


def check_same_dataset(stage: Stage, found: Mapping[str, Any], do: str) -> None:
    """Refuse a dataset that is another than when the plan of a training was made.

    Args:
        stage: the training, whose key holds what the dataset was.
        found: what it is now, as ``DatasetInfo.identity`` tells it.
        do: what a person should do, for the message.

    Raises:
        ElthError: with what differs.
    """
    planned = stage.params["dataset"]
    if found == planned:
        return
    names = sorted(planned.keys() | found.keys())
    which = next(one for one in names if planned.get(one) != found.get(one))
    raise ElthError(
        f"the dataset {stage.labels['dataset']} is another now than when the plan of "
        f"{stage.title} was made ({which} {found.get(which)}, expected {planned.get(which)}): {do}"
    )


def shape_of(stage: Stage) -> DataShape:
    """The shape of the data that a stage trains on."""
    if SHAPE in stage.labels:
        try:
            channels, size, classes = stage.labels[SHAPE]
        except (TypeError, ValueError) as error:
            found = stage.labels[SHAPE]
            raise ElthError(
                f"the stage {stage.title} should tell channels, side and classes of its dataset, "
                f"found {found!r}"
            ) from error
        return DataShape(channels=channels, size=size, classes=classes)
    return info(dataset_of(stage)).shape


def size_of(stage: Stage) -> int:
    """The number of training images of a stage's dataset."""
    return sizes_of(stage)[0]


def sizes_of(stage: Stage) -> tuple[int, int]:
    """The numbers of training and test images of a stage's dataset."""
    if SIZES in stage.labels:
        train, test = stage.labels[SIZES]
        return int(train), int(test)
    info = info_of(dataset_of(stage))
    return info.train_size, info.test_size


def title_of(labels: Mapping[str, Any]) -> str:
    """A short name for people of a stage of which the labels are known, as ``Stage.title``."""
    text = str(labels["network"])
    if labels["source"]:
        text += f" <- {labels['source']} {labels['transform']}"
        if labels["method"] != "ett":
            text += f" {labels['method']}"
    elif labels["method"] not in ("imp", "rewind"):
        text += f" {labels['method']}"
    if labels.get("ticket"):
        text += f" from {labels['ticket']}"
    if labels.get(MEASURE):
        text = f"{labels[MEASURE]} of {text} {labels[LOOKS_AT]}"
    elif labels["method"] == "rewind":
        text += " rewind point"
    elif labels.get("target"):
        text += f" at {100 * float(labels['target']):g} %"
    else:
        text += f" round {labels['round']}"
    if labels.get(VARIANT):
        text += f", {labels[VARIANT]}"
    if labels.get(NOISE):
        text += f", noise {labels[NOISE]}"
    return f"{text}, seed {labels['seed']}"
