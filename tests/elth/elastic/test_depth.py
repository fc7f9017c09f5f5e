"""Transformations move whole units: every tensor of the target is the one that the plan names."""

from __future__ import annotations

import dataclasses
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from elth.elastic import Plan, resolve, spell, tensor_sources, transform
from elth.errors import ElthError
from elth.networks import blueprint
from elth.tickets import Ticket, state_digest
from tests.elth.elastic.test_plans import TABLE
from tests.elth.helpers import IMAGE, anatomy, ticket

DEPTHS = {"resnet14": 2, "resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9}


def _origin(name: str, plan: tuple[tuple[int, ...], ...]) -> str:
    """The tensor that fills ``name``, worked out from the name alone."""
    unit = re.fullmatch(r"(?:layer(\d)|hidden)\.(\d+)\.(.*)", name)
    if unit is None:
        return name
    stage = int(unit[1] or 1)
    prefix = f"layer{stage}" if unit[1] else "hidden"
    return f"{prefix}.{plan[stage - 1][int(unit[2])]}.{unit[3]}"


def _assert_moved(source: Ticket, result: Ticket, plan: tuple[tuple[int, ...], ...]) -> None:
    expected = blueprint(result.network, result.shape).state_dict()
    assert list(result.rewind) == list(expected)
    for name, tensor in result.rewind.items():
        assert torch.equal(tensor, source.rewind[_origin(name, plan)]), name
    for name, mask in result.mask.items():
        assert torch.equal(mask, source.mask[_origin(name, plan)]), name


@pytest.mark.parametrize(("source", "target", "text", "expected"), TABLE)
def test_the_table_of_transformations(source: str, target: str, text: str, expected: str) -> None:
    width = "(width=1)" if source.startswith("resnet") else "(width=3,last_width=2)"
    before = ticket(source + width)
    units = tuple(int(unit) for unit in expected.split())
    stages = (units,) * len(anatomy(source).stages)
    after = transform(before, target + width, text)
    assert str(after.network).startswith(target)
    _assert_moved(before, after, stages)


@st.composite
def _moves(draw: st.DrawFn) -> tuple[str, str, Plan]:
    names = st.sampled_from(list(DEPTHS))
    source, target = draw(names), draw(names)
    unit = st.integers(1, DEPTHS[source] - 1)
    rest = DEPTHS[target] - 1
    stages = [draw(st.lists(unit, min_size=rest, max_size=rest)) for _ in range(3)]
    return source, target, Plan(tuple((0, *stage) for stage in stages))


@settings(max_examples=25)
@given(_moves())
def test_any_valid_plan_moves_every_tensor(move: tuple[str, str, Plan]) -> None:
    source, target, plan = move
    before = ticket(f"{source}(width=1)")
    after = transform(before, f"{target}(width=1)", spell(plan))
    _assert_moved(before, after, plan.stages)
    again = transform(before, f"{target}(width=1)", plan)
    assert state_digest(again.rewind) == state_digest(after.rewind)


def test_batch_normalisation_moves_with_its_unit_and_the_rest_is_copied() -> None:
    before = ticket("resnet14(width=2)")
    after = transform(before, "resnet20(width=2)")
    for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        for norm in ("bn1", "bn2"):
            moved = after.rewind[f"layer2.2.{norm}.{part}"]
            assert torch.equal(moved, before.rewind[f"layer2.1.{norm}.{part}"])
            assert not torch.equal(moved, before.rewind[f"layer2.0.{norm}.{part}"])
        shortcut = f"layer3.0.downsample.1.{part}"
        assert torch.equal(after.rewind[shortcut], before.rewind[shortcut])
    for name in ("conv1.weight", "bn1.running_var", "fc.weight", "fc.bias"):
        assert torch.equal(after.rewind[name], before.rewind[name])


def test_counts_follow_the_plan_and_nothing_is_trimmed() -> None:
    before = ticket("mlp2(width=4,last_width=3)")
    after = transform(before, "mlp4(width=4,last_width=3)")
    hidden = int(before.mask["hidden.0.weight"].sum())
    assert after.nonzeros == before.nonzeros + 2 * hidden


@pytest.mark.parametrize("text", ["append", "interpolate", "append:1", "interpolate:1,2x3+append"])
def test_stretch_and_squeeze_back(text: str) -> None:
    before = ticket("resnet20(width=2)")
    there = transform(before, "resnet56(width=2)", text)
    units = resolve(text, anatomy("resnet20"), anatomy("resnet56")).stages[0]
    back = transform(there, "resnet20(width=2)", " ".join(str(units.index(u)) for u in range(3)))
    assert state_digest(back.rewind) == state_digest(before.rewind)
    assert all(torch.equal(back.mask[name], m) for name, m in before.mask.items())
    assert list(back.rewind) == list(before.rewind)


def test_appended_units_are_dropped_by_default() -> None:
    before = ticket("resnet32(width=1)")
    back = transform(transform(before, "resnet56(width=1)", "append"), "resnet32(width=1)", "drop")
    assert state_digest(back.rewind) == state_digest(before.rewind)


def test_the_result_shares_no_memory() -> None:
    before = ticket("resnet14(width=1)")
    digest = state_digest(before.rewind)
    after = transform(before, "resnet20(width=1)")
    for tensor in (*after.rewind.values(), *after.mask.values()):
        tensor.zero_()
    assert state_digest(before.rewind) == digest
    assert before.nonzeros > 0
    fresh = transform(before, "resnet20(width=1)")
    fresh.rewind["layer1.1.conv1.weight"].zero_()
    assert bool(fresh.rewind["layer1.2.conv1.weight"].any())


def test_history_grows() -> None:
    before = dataclasses.replace(
        ticket("resnet14(width=1)"), origin={"seed": 1, "history": [{"imp_round": 6}]}
    )
    after = transform(before, "resnet20(width=1)", "interpolate")
    back = transform(after, "resnet14(width=1)")
    assert before.origin == {"seed": 1, "history": [{"imp_round": 6}]}
    assert back.origin["seed"] == 1
    assert back.origin["history"] == [
        {"imp_round": 6},
        {
            "transform": "append",
            "plan": [[0, 1, 1]] * 3,
            "source": "resnet14(width=1)",
            "target": "resnet20(width=1)",
            "source_nonzeros": before.nonzeros,
        },
        {
            "transform": "drop",
            "plan": [[0, 1]] * 3,
            "source": "resnet20(width=1)",
            "target": "resnet14(width=1)",
            "source_nonzeros": after.nonzeros,
        },
    ]
    assert "history" not in ticket("mlp1(width=1,last_width=1)").origin


def test_a_network_into_itself() -> None:
    before = ticket("resnet14(width=1)")
    after = transform(before, "resnet14(width=1)")
    assert state_digest(after.rewind) == state_digest(before.rewind)
    assert after.origin["history"][0]["transform"] == "identity"


def test_another_width_is_refused_by_tensor_and_shapes() -> None:
    with pytest.raises(
        ElthError,
        match=r"'conv1.weight' of resnet14\(width=2\) cannot fill 'conv1.weight' of "
        r"resnet20\(width=4\): expected shape \(4, 1, 3, 3\), found \(2, 1, 3, 3\)",
    ):
        transform(ticket("resnet14(width=2)"), "resnet20(width=4)")
    with pytest.raises(
        ElthError,
        match=r"'tail.weight' of mlp2.* cannot fill 'tail.weight' of mlp3.*: expected shape "
        r"\(7, 3\), found \(2, 3\)",
    ):
        transform(ticket("mlp2(width=3,last_width=2)"), "mlp3(width=3,last_width=7)")


def test_another_family_is_refused() -> None:
    with pytest.raises(ElthError, match="one family of networks: found cifar-resnet .* and mlp"):
        transform(ticket("resnet14(width=1)"), "mlp2", Plan(((0,),)))
    with pytest.raises(ElthError, match="one family of networks"):
        transform(ticket("mlp2(width=1,last_width=1)"), "resnet20")


def test_plans_that_do_not_fit_are_refused() -> None:
    before = ticket("resnet14(width=1)")
    with pytest.raises(ElthError, match="stage layer2: the plan fills 2 units"):
        transform(before, "resnet20(width=1)", Plan(((0, 1, 1), (0, 1), (0, 1, 1))))
    with pytest.raises(ElthError, match="unit 1 cannot fill place 0: unit 0 is fixed"):
        transform(before, "resnet20(width=1)", Plan(((1, 1, 1),) * 3))
    with pytest.raises(ElthError, match="unknown network 'resnet21'"):
        transform(before, "resnet21")


def test_tensor_sources_are_total_or_refused() -> None:
    plan = Plan(((0, 1, 1),) * 3)
    source, target = anatomy("resnet14"), anatomy("resnet20")
    names: dict[str, Tensor] = blueprint("resnet14", IMAGE).state_dict()
    wanted = ["conv1.weight", "layer1.2.bn1.bias", "layer1.1.bn1.bias"]
    assert tensor_sources(plan, source, target, names, wanted) == {
        "conv1.weight": "conv1.weight",
        "layer1.2.bn1.bias": "layer1.1.bn1.bias",
        "layer1.1.bn1.bias": "layer1.1.bn1.bias",
    }
    with pytest.raises(
        ElthError,
        match="nothing fills tensor 'layer1.2.gate' of the target: the source has no "
        "'layer1.1.gate'",
    ):
        tensor_sources(plan, source, target, names, ["layer1.2.gate"])
    with pytest.raises(ElthError, match="nothing fills tensor 'extra' of the target"):
        tensor_sources(plan, source, target, names, ["extra"])


def test_units_with_two_digits_are_not_mixed_up() -> None:
    before = ticket("resnet110(width=1)")
    units = (0, *range(17, 0, -1))
    after = transform(before, "resnet110(width=1)", " ".join(str(u) for u in units))
    _assert_moved(before, after, (units,) * 3)
