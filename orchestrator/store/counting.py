"""What the training of a stage costs, as metrics of its run, for MLflow's pages to plot.

A run tells of its own training alone, not of what had to be trained before it, which depends on the
grid (``orchestrator.report.flops``). Runs of before these metrics lack them, and nothing reads them
but people.
"""

from __future__ import annotations

from elth import masks
from elth.masks import Mask
from orchestrator.plan.flops import cost_of, dense_run, operations
from orchestrator.plan.stage import Stage, shape_of, size_of

FLOPS = (
    "flops/inference",
    "flops/inference_of_dense",
    "flops/training",
    "flops/training_of_dense",
)
"""Operations for one image with the mask and of the whole training, each absolute and in units of
the dense network: of its inference, and of one dense run of it by the stage's own recipe."""


def flops_of(stage: Stage, mask: Mask | None) -> dict[str, float]:
    """The metrics of ``FLOPS`` of a stage that trains something.

    Args:
        stage: a rewind point, a round, a retraining or a sparse training.
        mask: its mask, of a sparse training that of its end; None: nothing is pruned.

    Raises:
        ElthError: its network cannot be built.
    """
    cost = cost_of(stage.params["network"], shape_of(stage))
    kept = None if mask is None else {n: masks.nonzeros({n: m}) for n, m in mask.items()}
    found = operations(stage, kept, cost=cost)
    unit = dense_run(cost, stage.recipe, size_of(stage))
    numbers = (
        found.inference,
        found.inference / found.dense,
        found.training,
        found.training / unit,
    )
    return dict(zip(FLOPS, numbers, strict=True))
