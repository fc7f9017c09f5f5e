"""Counts that leave nothing, refused or told before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest

from elth import criteria, masks
from elth.data import info
from elth.errors import ElthError
from elth.networks import blueprint, facts
from elth.recipes import RECIPES
from orchestrator import plan
from orchestrator.experiment.sections import Experiment
from tests.orchestrator.helpers import tiny

SMALL = "resnet14(width=8)"
"""16 layers of 43,656 weights: 72, 1,152 to 9,216 in the stages, 128 to 512 between, 320."""


def _steep(*entries: dict[str, Any], rounds: int = 6, **changes: Any) -> Experiment:
    return tiny("steep", pruning={"rate": 0.9, "rounds": rounds}, grid=list(entries), **changes)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"method": "imp"},
            "round 5 of .* would keep none of 43,656 weights: round 4 is the last ",
        ),
        ({"method": "imp", "round": 6}, "round 6 of .* would keep none of 43,656 weights: round 4"),
        ({"method": "snip"}, "round 6 of .* would keep none"),
        *(
            (
                {"method": name, "sparsity": 0.99999},
                "a sparsity of 0.99999 on .* would keep none of",
            )
            for name in ("imp", "reinit", "random", *criteria.NAMES)
        ),
        (
            {"method": "ett", "source": SMALL, "network": "resnet20(width=8)", "round": 5},
            r"round 5 of resnet14\(width=8\) would keep none of 43,656",
        ),
        (
            {"method": "ett", "source": SMALL, "network": "resnet14(width=16)", "sparsity": 0.99999}
            | {"transform": "double"},
            r"a sparsity of 0.99999 on resnet14\(width=8\) would keep none of 43,656 weights: ask ",
        ),
    ],
)
def test_a_count_that_leaves_nothing_is_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ElthError, match=message):
        plan.build(_steep({"network": SMALL, **entry}))


def test_fewer_weights_than_layers_are_told_once() -> None:
    entry = {"method": ["imp", "reinit", "snip"], "network": SMALL, "round": "all"}
    assert plan.build(_steep(entry, rounds=3)).notes == ()
    found = _steep(entry, rounds=4).model_copy(update={"seeds": (0, 1)})
    (note,) = plan.build(found).notes
    assert note == (
        f"{SMALL} on digits: from round 4 on there are 4 weights at most for 16 layers, so at "
        "least one of these is empty; round 4 is the last that can be asked for"
    )
    assert facts(SMALL, info("digits").shape).layers == 16
    exact = {"method": "magnitude", "network": SMALL, "sparsity": [0.9, 0.9998, 0.9999]}
    assert plan.build(_steep(exact)).notes == (
        f"{SMALL} on digits: at a sparsity of 0.9998 there are 8 weights for 16 layers, so at "
        "least one of these is empty",
    )
    # 15 weights are too few for 16 layers, 16 are not: 1 - 16 / 43,656 is 0.99963 and a half.
    assert plan.build(_steep({**exact, "sparsity": 0.99963})).notes == ()
    assert len(plan.build(_steep({**exact, "sparsity": 0.99964})).notes) == 1


def test_a_distribution_tells_what_it_empties() -> None:
    """Weights go with the sum of a layer's sides (ERK), so the stem, 8x1x3x3, is the first."""
    entry = {"method": ["rigl", "static"], "network": SMALL, "sparsity": [0.99, 0.9996]}
    moving = {"rigl": {"every": "20it", "fraction": 0.9}}  # with less no update moves any
    steep = _steep(entry, criteria=moving)
    found = steep.model_copy(update={"recipe": RECIPES["digits_resnet"]})
    told = (
        f"on {SMALL} on digits: at a sparsity of 0.9996 (17 weights) none is left in conv1.weight, "
        "layer1.1.conv2.weight"
    )
    assert plan.build(found).notes == (f"RigL {told}", f"Static {told}")
    one = {"method": "rigl", "network": SMALL, "sparsity": 0.999, "variant": ["none", "er"]}
    variants = {"er": {"criteria.rigl.distribution": "er"}}
    by_variant = tiny("er", recipe="digits_resnet", variants=variants, criteria=moving, grid=[one])
    (note,) = plan.build(by_variant).notes
    assert note.startswith(f"RigL on {SMALL} on digits: at a sparsity of 0.999 (43 weights)")
    assert note.endswith("layer2.0.downsample.0.weight, layer3.0.downsample.0.weight, fc.weight")


def test_layers_that_are_never_pruned_are_not_counted() -> None:
    """mlp2 on digits: 19,200, 90,000, 30,000 and 1,000 weights, of which the last stay."""
    entry = {"method": "imp", "network": "mlp2"}
    assert facts("mlp2", info("digits").shape).sizes["head.weight"] == 1000
    assert plan.build(_steep({**entry, "sparsity": 0.992845})).notes == ()  # 1,003 and 3 layers
    (note,) = plan.build(_steep({**entry, "sparsity": 0.992855})).notes
    assert "there is 1 weight for 3 layers, so at least one of these is empty" in note


@pytest.mark.parametrize("network", [SMALL, "mlp2"])
def test_the_share_of_a_layerwise_criterion_is_arithmetic(network: str) -> None:
    """What the plan works out is what the criterion does."""
    shape = info("digits").shape
    told, made = facts(network, shape), blueprint(network, shape)
    assert told.sizes == {name: m.numel() for name, m in masks.ones(made).items()}
    made.to_empty(device="cpu")
    for keep in (told.unpruned + 40, told.unpruned + 400, told.prunable // 2, told.prunable):
        unpruned = told.anatomy.unpruned
        shares = criteria.shares("random_layerwise", told.sizes, keep, unpruned)
        mask = criteria.prune("random_layerwise", made, keep=keep, seed=0, shape=shape)
        kept = {n: masks.nonzeros({n: m}) for n, m in mask.items() if n not in unpruned}
        assert shares == kept
    assert criteria.shares("snip", told.sizes, 40) is None


def test_a_layerwise_criterion_tells_what_it_empties() -> None:
    entry = {
        "method": ["random_layerwise", "magnitude"],
        "network": SMALL,
        "sparsity": [0.9, 0.995],
    }
    assert plan.build(_steep(entry)).notes == (
        f"Random (uniform) on {SMALL} on digits: at a sparsity of 0.995 (218 weights) none is left "
        "in conv1.weight",
    )
    entry = {"method": "random_layerwise", "network": SMALL, "round": [1, 2, 3, 4]}
    rounds, shares = plan.build(_steep(entry)).notes
    assert "from round 4 on there are 4 weights at most for 16 layers" in rounds
    assert "from round 3 on (43 weights) none is left in conv1.weight, " in shares
