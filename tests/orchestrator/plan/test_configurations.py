"""The configurations that come with the project."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from orchestrator import plan
from orchestrator.experiment.reading import load
from tests.orchestrator.plan.helpers import CONFIGS


@pytest.mark.parametrize(
    ("name", "counts", "jobs"),
    [
        # Six seeds; chains of ResNet-14 and 20 of six rounds. ETT 14->20 at three rounds, 20->14 at
        # three, 20->32 at three, ResNet-32 dense; three controls at three.
        ("quickstart", {"rewind_point": 18, "round": 90, "retraining": 108}, 126),
        ("mnist_mlp", {"rewind_point": 9, "round": 99, "retraining": 18}, 27),
        ("cifar10_short", {"rewind_point": 1, "round": 2, "retraining": 1}, 2),
        # Two chains of four rounds, two twins, three of weights drawn anew, ETT and its twin.
        (
            "inside_resnet20",
            {"rewind_point": 2, "round": 10, "retraining": 5, "analysis": 32},
            2 + 2 + 5 + 32,
        ),
        (
            "inside_conv4",
            {"rewind_point": 1, "round": 5, "retraining": 2, "analysis": 28},
            1 + 1 + 2 + 28,
        ),
        # Three seeds; ResNet-14, 20 and 32 to round 13, each with last smaller rounds to 90 and to
        # 95 %, two tickets of each, and ResNet-56 dense.
        # DPF by a recipe of its own, with a dense network each.
        (
            "table3_dpf",
            {
                "rewind_point": 12 + 9,
                "round": 3 * (3 * 16 + 1) + 9,
                "retraining": 18,
                "sparse_training": 18,
            },
            48 + 9 + 18,
        ),
        # RigL in four ways and four more methods, at two sparsities on three networks.
        (
            "rigl_cifar",
            {"rewind_point": 9, "round": 144, "retraining": 18, "sparse_training": 3 * 3 * 2 * 8},
            9 + 18 + 18 + 144,
        ),
        (
            "table2_rigl",
            {"rewind_point": 3, "round": 9, "retraining": 2, "sparse_training": 9},
            3 + 2 + 9,
        ),
    ],
)
def test_configurations(name: str, counts: dict[str, int], jobs: int) -> None:
    built = plan.build(load(CONFIGS / f"{name}.yaml"))
    assert plan.count_kinds(built.stages.values()) == counts
    assert len(built.jobs()) == jobs


def test_the_grid_of_figure_6() -> None:
    """Five ResNets and three seeds: 13 rounds each, between all pairs, and five baselines."""
    built = plan.build(load(CONFIGS / "fig6_cifar_resnets.yaml"))
    assert plan.count_kinds(built.stages.values()) == {
        "rewind_point": 5 * 3,
        "round": 5 * 14 * 3,
        "retraining": 20 * 13 * 3 + 5 * 5 * 13 * 3,
    }
    assert 5 * 14 * 3 + 20 * 13 * 3 + 5 * 5 * 13 * 3 == 1965
    # Alone: a chain of 14; ETT, Reinit and Random a chain and 13 tickets, the criteria 13.
    lines = 5 * 14 + (20 + 2 * 5) * (14 + 13) + 3 * 5 * 13
    # Alone, to round k: k + 1 of a chain, one more for a ticket that is made of it.
    cells = sum(5 * (k + 1) + (20 + 2 * 5) * (k + 2) + 3 * 5 for k in range(1, 14))
    assert built.alone() == (3 * lines, 3 * cells)


def _trainings(name: str) -> dict[str, str]:
    """The trainings of a configuration: networks by key."""
    stages = plan.build(load(CONFIGS / f"{name}.yaml")).stages
    kinds = ("round", "retraining")
    return {key: one.labels["network"] for key, one in stages.items() if one.kind in kinds}


def test_the_configurations_of_maene_et_al_share_what_they_have_in_common() -> None:
    """Of 3,496 trainings the figures have 2,947; the paper's own 2,747 have one seed of some."""
    trained: dict[str, int] = {}
    found: dict[str, str] = {}
    for path in sorted(CONFIGS.glob("maene_*.yaml")):
        own = _trainings(path.stem)
        trained[path.stem] = len(own)
        found |= own
    assert trained == {
        "maene_fig1_stability": 2 * 12 * 3 * 25 + 6 * 3 * 3,
        "maene_fig3_repulsion": 2 * 2 * 3 * 25 + 2 * 2 * 3 * 24,
        "maene_fig5_histograms": 2 * (11 + 1),
        "maene_fig7_weight_decay": 2 * 3 * 25,
        "maene_fig8_barriers": 2 * 3 * 25,
        "maene_conv4": 3 * (2 * 25 + 2 * 24 + 4 * 25),
        "maene_lenet": 33 + 30 + 2 * 24 + 23,
        "maene_resnet50": 2,
    }
    assert Counter(name.partition("(")[0] for name in found.values()) == {
        "resnet20": 1854 + 288 + 75,
        "conv4": 394 + 2 * 4 * 25,  # the unstable chains with three seeds
        "lenet_300_100": 134,
        "resnet50": 2,
    }


def test_figure_8_and_the_further_plans_share_the_chains_of_figure_6() -> None:
    names = ("fig6_cifar_resnets", "fig8_connectivity", "v1_fig9_13_plans")
    six, eight, further = (_trainings(name).keys() for name in names)
    assert len(eight - six) == 9  # the twins
    assert six < further


def _scales(path: Path) -> list[str]:
    return ["full", *yaml.safe_load(path.read_text(encoding="utf-8")).get("scales", {})]


@pytest.mark.parametrize(
    ("path", "scale"),
    [(path, scale) for path in sorted(CONFIGS.glob("*.yaml")) for scale in _scales(path)],
    ids=lambda value: value.stem if isinstance(value, Path) else value,
)
def test_every_configuration_can_be_planned_at_every_scale(path: Path, scale: str) -> None:
    loaded = load(path, [f"scale={scale}"])
    assert loaded.name == (path.stem if scale == "full" else f"{path.stem}-{scale}")
    assert loaded.description
    built = plan.build(loaded)
    assert len(built.asked) <= len(built.stages)
    if scale == "smoke":  # without a GPU, a download or many minutes
        assert {plan.dataset_of(stage).partition("(")[0] for stage in built.stages.values()} == {
            "digits"
        }
        assert (loaded.resources.cpus, loaded.resources.gpus) == (1, 0)
        assert loaded.seeds == (0,)


def test_the_configurations_of_the_papers_have_a_smoke_scale() -> None:
    papers = [path for path in CONFIGS.glob("*.yaml") if load(path).paper is not None]
    assert len(papers) >= 10
    assert all("smoke" in _scales(path) for path in papers)
