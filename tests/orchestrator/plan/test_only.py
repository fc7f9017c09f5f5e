"""Parts of a grid: what they choose, what comes with it, and what is refused."""

from __future__ import annotations

import pytest

from elth.errors import ElthError
from orchestrator import plan
from orchestrator.plan.graph import Plan
from orchestrator.plan.only import Only
from tests.orchestrator.helpers import TINY, TINY_DEEPER, tiny


def _built() -> Plan:
    moved = {"source": TINY, "network": TINY_DEEPER, "transform": "append", "round": [1, 2]}
    return plan.build(
        tiny(
            "parts",
            seeds=[0, 1],
            variants={"b32": {"recipe.batch_size": 32}},
            grid=[
                {"method": "imp", "network": TINY, "variant": ["none", "b32"]},
                {"method": "imp", "network": TINY_DEEPER, "sparsity": 0.6},
                {"method": "ett", **moved},
                {"method": ["random", "magnitude"], "network": TINY_DEEPER},
            ],
        )
    )


BUILT = _built()


def _titles(*texts: str) -> set[str]:
    only = Only.parse(texts)
    assert only is not None
    return {stage.title for stage in only.of(BUILT, "parts").stages.values()}


def _refused(*texts: str) -> str:
    with pytest.raises(ElthError) as caught:
        _titles(*texts)
    return str(caught.value)


def test_what_is_chosen_comes_with_its_source_chain() -> None:
    assert _titles(f"method=ett,network={TINY_DEEPER},round=1,seed=0") == {
        f"{TINY_DEEPER} <- {TINY} append round 1, seed 0",
        f"{TINY} rewind point, seed 0",
        f"{TINY} dense round 0, seed 0",
        f"{TINY} round 1, seed 0",
    }


def test_a_criterion_needs_no_round() -> None:
    assert _titles("method=magnitude,seed=1") == {
        f"{TINY_DEEPER} magnitude round 2, seed 1",
        f"{TINY_DEEPER} rewind point, seed 1",
    }


@pytest.mark.parametrize(
    "text",
    [
        "method=random,magnitude,seed=1",
        "method=random|magnitude,seed=1",
        " method = random | magnitude , seed = 1",
        "seed=1,method=magnitude,random",
    ],
)
def test_an_axis_may_have_several_values(text: str) -> None:
    expected = _titles("method=random,seed=1") | _titles("method=magnitude,seed=1")
    assert _titles(text) == expected


def test_several_texts_add_up() -> None:
    both = _titles("method=magnitude,seed=1", "method=ett,round=1,seed=0")
    assert both == _titles("method=magnitude,seed=1") | _titles("method=ett,round=1,seed=0")


def test_commas_in_brackets_are_of_a_network() -> None:
    first = Only.parse(["network=resnet14(width=4, bn_affine=true),seed=0"])
    assert first == Only(({"network": ("resnet14(width=4, bn_affine=true)",), "seed": ("0",)},))


def test_a_network_without_options_stands_for_any() -> None:
    assert _titles("network=resnet14,seed=0") == _titles(f"network={TINY},seed=0")
    assert _titles("source=resnet14") == _titles(f"source={TINY}")
    assert _titles("network=resnet14(width=4),seed=0") == _titles(f"network={TINY},seed=0")


def test_none_is_the_experiment_itself() -> None:
    plain, varied = (_titles(f"variant={name},network={TINY},seed=0") for name in ("none", "b32"))
    assert f"{TINY} round 2, seed 0" in plain
    assert {title for title in varied if ", b32," in title} == varied
    assert not plain & varied


def test_numbers_have_ranges_and_a_sparsity_is_no_round() -> None:
    assert _titles("method=imp,network=resnet14,round=1-2,seed=0-1") == _titles(
        "method=imp,network=resnet14,round=1,2,seed=0,1"
    )
    exact = f"{TINY_DEEPER} at 60 %, seed 0"
    assert exact in _titles("sparsity=0.60,seed=0")
    assert exact not in _titles("method=imp,network=resnet20,round=2,seed=0")


def test_a_part_keeps_what_is_asked_and_kept_of_its_stages() -> None:
    only = Only.parse(["method=ett,round=1,seed=0"])
    assert only is not None
    part = only.of(BUILT, "parts")
    assert set(part.asked) == set(BUILT.asked) & part.stages.keys()
    assert part.kept == BUILT.kept & part.stages.keys()
    assert list(part.stages) == [key for key in BUILT.stages if key in part.stages]


def test_what_there_is_not_is_refused_with_what_there_is() -> None:
    assert "unknown axis of --only 'metod'; did you mean 'method'?" in _refused("metod=ett")
    told = _refused("method=magnitud")
    assert told.startswith("--only method=magnitud chooses nothing of parts; did you mean 'magnit")
    assert "(there is: dense, ett, imp, magnitude, random, rewind)" in told
    assert "(there is: 0, 1)" in _refused("seed=2")
    assert "(there is: 0, 1, 2, none)" in _refused("round=3-9")


def test_values_that_never_meet_are_refused() -> None:
    told = "--only method=magnitude,round=1 chooses nothing of parts: beside the rest round is 2"
    assert _refused("method=magnitude,round=1") == told


@pytest.mark.parametrize("text", ["", "ett", "method", "method=", "method=ett,,seed=0", "=ett"])
def test_another_form_is_refused(text: str) -> None:
    assert "--only takes AXIS=VALUE" in _refused(text)


def test_an_axis_is_named_once() -> None:
    assert "names seed twice: write seed=ONE,OTHER" in _refused("seed=0,method=imp,seed=1")


def test_nothing_given_is_no_part() -> None:
    assert Only.parse(()) is None


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("transform=append:1,2", ("append:1,2",)),
        ("transform=append:1,2,drop:1,3", ("append:1,2", "drop:1,3")),
        ("transform=append:1-4", ("append:1-4",)),
        ("transform=append|interpolate", ("append", "interpolate")),
        ("transform=0 1 1|0 1 1", ("0 1 1|0 1 1",)),
        ("round=1,2", ("1", "2")),
    ],
)
def test_the_plan_of_a_transformation_is_one_value(text: str, values: tuple[str, ...]) -> None:
    found = Only.parse([text])
    assert found is not None
    assert [tuple(part.values()) for part in found.parts] == [(values,)]
