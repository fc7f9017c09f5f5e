"""What a plan refuses before anything is spent."""

from __future__ import annotations

import re
from typing import Any

import pytest

from elth.errors import ElthError
from orchestrator import plan
from orchestrator.experiment.methods import METHODS, SOURCE
from orchestrator.plan.graph import Plan
from tests.orchestrator.helpers import experiment, of_kind
from tests.orchestrator.plan.helpers import SHORT, STRETCH

MOVES_TO_ITSELF: list[dict[str, Any]] = [
    {"network": "resnet20"},
    {"network": "resnet20(width=16)", "transform": "identity"},
    {"network": ["resnet32", "resnet20"], "transform": "auto", "round": 3},
]
"""Of ResNet-20."""


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"method": "ett", "source": "mlp2", "network": "resnet20", "round": 3},
            "a ticket moves within one family of networks: found mlp with 1 stages and "
            "cifar-resnet with 3",
        ),
        (
            {"method": "ett", "source": "resnet14(width=8)", "network": "resnet20"},
            r"a ticket of resnet14\(width=8\) does not fit resnet20: 'conv1.weight' has shape "
            r"\(16, 3, 3, 3\), 'conv1.weight' of the source \(8, 3, 3, 3\); between widths in the "
            "ratio of two, transform is double or halve",
        ),
        (
            {
                "method": "ett",
                "source": "resnet20",
                "source_dataset": "digits",
                "network": "resnet20",
            },
            r"a ticket of resnet20 does not fit resnet20: 'conv1.weight' has shape \(16, 3, 3, 3\)"
            r", 'conv1.weight' of the source \(16, 1, 3, 3\)$",
        ),
        (
            {
                "method": "ett",
                "source": "mlp1",
                "source_dataset": "svhn",
                "network": "mlp1",
                "dataset": "cifar10(size=16)",
                "round": 3,
            },
            r"a ticket of mlp1 does not fit mlp1: 'stem.weight' has shape \(300, 768\), 'stem",
        ),
        (
            {
                "method": "ett",
                "source": "resnet20",
                "source_dataset": "digits",
                "network": "resnet20(width=32)",
                "transform": "double",
            },
            "conv1.weight",
        ),
        (
            {
                "method": "ett",
                "source": "resnet20",
                "network": "resnet20(width=64)",
                "transform": "double",
            },
            r"'conv1.weight' has shape \(16, 3, 3, 3\) in resnet20 and \(64, 3, 3, 3\) in resnet20"
            r"\(width=64\): double needs a target of twice the width",
        ),
        (
            {
                "method": "ett",
                "source": "resnet20",
                "network": "resnet20(width=32)",
                "transform": "double:gausian",
            },
            "unknown way to double 'gausian'; did you mean 'gaussian'?",
        ),
        *(
            (
                {
                    "method": method,
                    "source": source,
                    "network": network,
                    "transform": transform,
                    "round": 1,
                },
                f"method {method} is about replicated units, and '{transform}' from {source} to "
                f"{re.escape(network)} has none: give a plan that stretches",
            )
            for method in ("ett_random_extra", "ett_snip_extra")
            for source, network, transform in [
                ("resnet20", "resnet14", "drop"),
                ("resnet20", "resnet20(width=32)", "double"),
            ]
        ),
        *(
            (
                {"method": method, "source": "resnet20", **entry},
                f"method {method} from resnet20 to itself changes no unit: use reinit or random, "
                "which are the same, or leave this pair out",
            )
            for method, m in METHODS.items()
            if m.base == SOURCE and m.steps
            for entry in MOVES_TO_ITSELF
        ),
        (
            {
                "method": "ett_snip_extra",
                "source": "resnet14",
                "source_dataset": "svhn",
                "network": "resnet20",
            },
            "method ett_snip_extra is about replicated units, and 'auto' from resnet14 to resnet20",
        ),
        (
            {"method": ["magnitude", "imp"], "network": "resnet20", "sparsity": 0.99999},
            r"a sparsity of 0.99999 on resnet20 needs a smaller round after round 49, and "
            r"pruning.rounds is 40 \(99.99 %\)",
        ),
        (
            # 0.05 % of 3,072 x 300 + 300 x 100 + 100 x 10.
            {"method": "snip", "network": "mlp1", "sparsity": 0.9995},
            r"a sparsity of 0.9995 on mlp1 would keep 476 weights, and 1,000 in head.weight are "
            r"never pruned: ask for 0.99895 at most, which keeps 1,000",
        ),
        (
            {"method": "ett", "source": "resnet14", "network": "resnet20", "transform": "apend"},
            "unknown plan 'apend'; did you mean 'append'?",
        ),
        (
            {"method": "ett", "source": "resnet14", "network": "resnet20", "transform": "drop"},
            "stage layer1: 'drop' can only squeeze; 2 units are to fill 3",
        ),
        (
            {"method": ["imp", "magnitude"], "network": "mlp1", "round": 31},
            "round 31 of mlp1 would keep 941 weights, and 1,000 in head.weight are never pruned: "
            r"round 30 is the last that keeps as many \(1,177\), where each prunes 0.2 of",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_spent(
    entry: dict[str, Any], message: str
) -> None:
    with pytest.raises(ElthError, match=message):
        plan.build(experiment(grid=[entry], pruning={"rounds": 40}))


@pytest.mark.parametrize(
    "changes",
    [{"network": "resnet20", "transform": "0 2 1"}, {"network": "resnet20", "dataset": "svhn"}],
    ids=str,
)
def test_a_control_within_a_network_that_changes_something_is_planned(
    changes: dict[str, str],
) -> None:
    """Units may change places, and the head changes with the dataset."""
    entry = {"method": "ett_reinit", "source": "resnet20", "round": 1, **changes}
    (stage,) = of_kind(plan.build(experiment(grid=[entry])), "retraining")
    assert len(stage.params["ticket"]) == 2
    assert stage.params["ticket"][-1] == {"reinit": "all"}


def test_an_exact_sparsity_beyond_the_last_round_is_refused() -> None:
    entry = {"method": "imp", "network": "resnet20", "sparsity": 0.9}
    # 29,085 are left after round 10, 36,357 after round 9: 27,089 needs ten rounds and a smaller.
    plan.build(experiment(grid=[entry], pruning={"rounds": 10}))
    message = (
        r"a sparsity of 0.9 on resnet20 needs a smaller round after round 10, and pruning.rounds "
        r"is 9 \(86.58 %\)"
    )
    with pytest.raises(ElthError, match=message):
        plan.build(experiment(grid=[entry], pruning={"rounds": 9}))


def test_a_rewind_point_behind_the_end_is_refused() -> None:
    recipe = {"base": "cifar10_resnet", "length": "2ep", "milestones": []}
    with pytest.raises(ElthError, match=r"rewind point 1000it \(iteration 1000\) must come before"):
        plan.build(experiment(recipe=recipe))


def _planned(recipe: dict[str, Any], **changes: Any) -> Plan:
    return plan.build(experiment(recipe={**SHORT, **recipe}, **changes))


@pytest.mark.parametrize(
    "recipe",
    [
        {"milestones": ["4ep"]},
        {"milestones": ["1954it"]},  # of 5 x 391 = 1,955
        {"milestones": ["5ep", "9ep"], "schedule": "constant"},  # which has none
        {"milestones": ["5ep"], "schedule": "cosine"},
        {"warmup": "4ep"},
        {"warmup": "1954it", "schedule": "cosine"},
    ],
    ids=str,
)
def test_a_schedule_of_which_every_part_is_reached(recipe: dict[str, Any]) -> None:
    assert len(_planned(recipe).stages) == 15


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            {"milestones": ["5ep"]},
            "the learning rate is to drop at 5ep, and the training ends at 5ep: give milestones "
            "that lie before, or none",
        ),
        ({"milestones": ["3ep", "1955it"]}, "is to drop at 1955it, and the training ends at 5ep:"),
        ({"milestones": ["9ep", "7ep"]}, "is to drop at 9ep, and the training ends at 5ep:"),
        (
            {"length": "1200it", "milestones": ["4ep"]},
            "is to drop at 4ep, and the training ends at 1200it:",
        ),
        (
            {"warmup": "5ep"},
            "the warm-up ends at 5ep, and the training at 5ep: shorten the warm-up",
        ),
        ({"warmup": "1955it", "schedule": "constant"}, "the warm-up ends at 1955it, and the train"),
        ({"warmup": "6ep", "schedule": "cosine"}, "the warm-up ends at 6ep, and the training at 5"),
    ],
    ids=str,
)
def test_a_schedule_of_which_a_part_is_never_reached_is_refused(
    recipe: dict[str, Any], message: str
) -> None:
    with pytest.raises(ElthError, match=message):
        _planned(recipe)


def test_the_schedule_of_each_dataset_is_looked_at_with_its_own_epochs() -> None:
    # 2,000 iterations are 5.1 epochs of CIFAR-10 and 3.5 of SVHN.
    recipe = {**SHORT, "length": "2000it", "milestones": ["4ep"]}
    entry = {"method": "imp", "network": "resnet20"}
    plan.build(experiment(grid=[entry], recipe=recipe))
    with pytest.raises(ElthError, match="is to drop at 4ep, and the training ends at 2000it"):
        plan.build(experiment(grid=[{**entry, "dataset": "svhn"}], recipe=recipe))
    plan.build(
        experiment(grid=[{**entry, "dataset": "svhn"}], recipe=recipe, recipes={"svhn": SHORT})
    )
    late = {**SHORT, "milestones": ["5ep"]}
    grid = [{**entry, "dataset": ["cifar10", "svhn"]}]
    with pytest.raises(ElthError, match="is to drop at 5ep, and the training ends at 5ep"):
        plan.build(experiment(grid=grid, recipe=SHORT, recipes={"svhn": late}))


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("snip", {"samples": 50_000}),
        ("snip", {"samples": 0}),  # all there are
        ("grasp", {"samples_per_class": 5000}),
        ("grasp", {"samples_per_class": 100, "batches": 50}),
        ("grasp_absolute", {"samples_per_class": 1, "batches": 5000}),
    ],
    ids=str,
)
def test_a_criterion_may_ask_for_every_training_image(
    method: str, settings: dict[str, int]
) -> None:
    entry = {"method": method, "network": "resnet20", "round": 1}
    plan.build(experiment(grid=[entry], criteria={method: settings}))


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (
            "snip",
            {"samples": 50_001},
            "criterion snip asks for 50,001 training images, and cifar10 has 50,000: lower "
            "criteria.snip",
        ),
        (
            "grasp",  # of each of ten classes
            {"samples_per_class": 5001},
            "criterion grasp asks for 50,010 training images, and cifar10 has 50,000: lower "
            "criteria.grasp",
        ),
        (
            "grasp_absolute",  # 10 x 501 x 10
            {"batches": 501},
            "criterion grasp_absolute asks for 50,100 training images, and cifar10 has 50,000: "
            "lower criteria.grasp_absolute",
        ),
    ],
)
def test_a_criterion_that_asks_for_more_images_than_there_are_is_refused(
    method: str, settings: dict[str, int], message: str
) -> None:
    entry = {"method": method, "network": "resnet20", "round": 1}
    with pytest.raises(ElthError, match=f"^{message}$"):
        plan.build(experiment(grid=[entry], criteria={method: settings}))


def test_images_are_counted_on_the_dataset_of_the_cell() -> None:
    entry = {"method": "snip", "network": "resnet20", "round": 1}
    settings = {"snip": {"samples": 60_000}}
    plan.build(experiment(grid=[{**entry, "dataset": "svhn"}], criteria=settings))  # 73,257
    message = "criterion snip asks for 60,000 training images, and cifar10 has 50,000"
    with pytest.raises(ElthError, match=message):
        plan.build(experiment(grid=[{**entry, "dataset": ["svhn", "cifar10"]}], criteria=settings))
    # 1,297 digits: 128 of SNIP's default are there, 130 of each class are not.
    small = experiment(
        grid=[{**entry, "method": ["snip", "grasp"]}],
        dataset="digits",
        recipe="digits_resnet",
        criteria={"grasp": {"samples_per_class": 130}},
    )
    message = "criterion grasp asks for 1,300 training images, and digits has 1,297: lower"
    with pytest.raises(ElthError, match=message):
        plan.build(small)


def test_a_graft_that_asks_for_more_images_than_there_are_is_refused() -> None:
    entry = {"method": "ett_snip_extra", **STRETCH, "round": 1}
    found = experiment(grid=[entry], criteria={"snip": {"samples": 50_001}})
    with pytest.raises(ElthError, match="criterion snip asks for 50,001 training images"):
        plan.build(found)
