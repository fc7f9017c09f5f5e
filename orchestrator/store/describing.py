"""What MLflow's pages show of a stage in MLflow's own terms: numbers, datasets, a description.

The pages sort parameters as text, ``10`` before ``2``, so labels that are numbers are metrics too.
A stage's parents are told by links in its description: MLflow's own parent of a run
(``mlflow.parentRunId``) would put the rounds of a chain one into the other, each folded away.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from mlflow.entities import Dataset, DatasetInput, InputTag

from elth.errors import ElthError
from orchestrator.plan.stage import SHAPE, SIZES, Stage, dataset_of, info_of

NUMBERS = ("round", "seed", "sparsity", "nonzeros")
"""Parameters that are metrics too, under the same names; sparsity in percent."""

NUMBERED = "elth.numbered"
"""The tag of the experiment with the stages that says that all its runs have those metrics."""

_CONTEXT = "mlflow.data.context"
_PARTS = ("train", "test")
_DIGITS = 16


def numbers_of(params: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that some parameters of a run are as well; a rewind point has not all of them."""
    found = {}
    for name in NUMBERS:
        with contextlib.suppress(KeyError, ValueError):
            found[name] = float(params[name])
    return found


def inputs_of(stage: Stage) -> list[DatasetInput]:
    """The two parts of a stage's dataset, as MLflow knows inputs of a run.

    MLflow tells inputs apart by name and digest, so the digest of each part is the beginning of the
    dataset's fingerprint and the part's name.
    """
    identity = stage.params.get("dataset", {})
    digest = str(identity.get("fingerprint", ""))[:_DIGITS]
    sizes = _sizes(stage)
    return [
        DatasetInput(
            Dataset(
                name=str(stage.labels["dataset"]),
                digest=f"{digest}-{part}",
                source_type="elth",
                source=json.dumps({"name": identity.get("name"), "fingerprint": digest}),
                profile=json.dumps({"images": size, **_shape(stage)}),
            ),
            tags=[InputTag(_CONTEXT, part)],
        )
        for part, size in zip(_PARTS, sizes, strict=True)
    ]


def _sizes(stage: Stage) -> tuple[int | None, int | None]:
    with contextlib.suppress(ElthError, TypeError, ValueError):
        if SIZES in stage.labels:
            train, test = stage.labels[SIZES]
            return train, test
        info = info_of(dataset_of(stage))
        return info.train_size, info.test_size
    return None, None


def _shape(stage: Stage) -> dict[str, int]:
    names = ("channels", "side", "classes")
    with contextlib.suppress(TypeError, ValueError):
        return dict(zip(names, stage.labels.get(SHAPE, ()), strict=True))
    return {}


def plain_inputs(inputs: list[DatasetInput]) -> list[dict[str, Any]]:
    """Inputs as JSON values; ``inputs_from`` undoes it."""
    return [
        {**dict(one.dataset), "context": one.tags[0].value if one.tags else ""} for one in inputs
    ]


def inputs_from(values: list[dict[str, Any]]) -> list[DatasetInput]:
    """Read what ``plain_inputs`` gave."""
    found = []
    for value in values:
        rest = {name: one for name, one in value.items() if name != "context"}
        found.append(DatasetInput(Dataset(**rest), tags=[InputTag(_CONTEXT, value["context"])]))
    return found


def note_of(stage: Stage, experiment: str, grid: str) -> str:
    """What a stage is and what it is made from, in Markdown, for the description of its run.

    Args:
        stage: the stage.
        experiment: the id of the experiment with the stages, for links.
        grid: for which it was made first.
    """
    label = stage.labels
    kind = stage.kind.replace("_", " ")
    made = f", method `{label['method']}`, first made for the grid `{grid}`"
    text = (
        f"**{stage.title}**: {'an' if stage.is_given else 'a'} {kind}"
        f"{' ticket' if stage.is_given else ''} of `{label['network']}` on {label['dataset']}"
        f"{'' if stage.is_given else made}. Its key is `{stage.key[:12]}` (`elth ticket show "
        f"{stage.key[:12]}`)."
    )
    if stage.parents:
        links = [f"[{key[:12]}]({_link(experiment, key)})" for key in stage.parents]
        text += f"\n\nMade from {' and '.join(links)}."
    return text


def placed(note: str, experiment: str) -> str:
    """A description, its links leading to another experiment."""
    return re.sub(r"(?<=\(#/experiments/)\w+(?=/)", experiment, note)


def _link(experiment: str, key: str) -> str:
    """The page that lists the runs of a stage."""
    words = quote(f"tags.`elth.key` = '{key}'", safe="")
    return f"#/experiments/{experiment}/runs?searchFilter={words}"
