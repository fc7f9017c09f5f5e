"""Transformations move whole units: every tensor of the target is the one that the plan names."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from elth.elastic import Plan, resolve, spell, tensor_sources, transform
from elth.errors import ElthError
from elth.networks import DataShape, blueprint, canonical, prunable
from elth.tickets import Ticket, state_digest
from tests.elth.elastic.test_plans import TABLE
from tests.elth.helpers import anatomy, ticket

STEPS = ("append", "interpolate", "drop", "auto", "identity")


@dataclass(frozen=True)
class Family:
    """What the paper says of a family, and the state dict: nothing here is asked of a network."""

    stages: tuple[str, ...]
    members: Mapping[str, tuple[int, ...]]
    """Small networks, with the units of each stage."""
    size: int = 4
    free: str = ""
    """The stage whose first unit is free as the others are."""

    @property
    def shape(self) -> DataShape:
        return DataShape(channels=1, size=self.size, classes=3)

    def fixed(self, stage: int) -> int:
        """How many units at the start of a stage stay in their place."""
        return int(self.stages[stage] != self.free)

    def pairs(self) -> list[tuple[str, str]]:
        """Sources and targets: where a stage gets deeper there must be a unit to replicate."""
        return [
            (source, target)
            for source, have in self.members.items()
            for target, want in self.members.items()
            if all(
                w == self.fixed(i) or h > self.fixed(i)
                for i, (h, w) in enumerate(zip(have, want, strict=True))
                if w
            )
        ]


LAYERS = ("layer1", "layer2", "layer3")
STAGES = ("stage1", "stage2", "stage3", "stage4", "stage5")
VGGS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
FAMILIES = {
    "cifar-resnet": Family(
        LAYERS, {f"resnet{6 * d + 2}(width=1)": (d, d, d) for d in (2, 3, 5, 7)}
    ),
    "cifar-resnet of Maene et al.": Family(
        LAYERS,
        {f"resnet{6 * d + 2}(bn_affine=false,shortcut=pad,width=1)": (d, d, d) for d in (2, 3, 5)},
    ),
    "vgg": Family(
        (*STAGES, "tail"),
        {
            f"{name}(fc={fc},width=1)": (*depths, fc - 1)
            for name, depths in VGGS.items()
            for fc in (1, 2, 3, 5)
        },
        size=16,
        free="tail",
    ),
    "imagenet-resnet": Family(
        (*LAYERS, "layer4"), {"resnet18": (2, 2, 2, 2), "resnet26": (2, 3, 4, 3)}, size=32
    ),
    "imagenet-bottleneck-resnet": Family((*LAYERS, "layer4"), {"resnet50": (3, 4, 6, 3)}, size=32),
    "mlp": Family(
        ("hidden",),
        {f"mlp{n}(last_width=2,width=3)": (n - 1,) for n in (1, 2, 3, 4)}
        | {"lenet_300_100(last_width=2,width=3)": (0,)},
        free="hidden",
    ),
    "conv4": Family(("stage1", "stage2", "tail"), {"conv4(width=1)": (2, 2, 1)}, free="tail"),
    "mobilenet": Family(
        STAGES,
        {f"mobilenet(repeats={r},width=1)": (1, 2, 2, 1 + r, 2) for r in (1, 2, 5, 7)},
        size=16,
    ),
}
WIDE = {"imagenet-resnet", "imagenet-bottleneck-resnet"}
NARROW = [name for name in FAMILIES if name not in WIDE]

StagePlans = tuple[tuple[int, ...], ...]


def _origin(name: str, stages: tuple[str, ...], plan: StagePlans) -> str:
    """The tensor that fills ``name``, worked out from the name alone."""
    stage, _, inside = name.partition(".")
    unit, _, rest = inside.partition(".")
    if stage not in stages or not unit.isdigit():
        return name
    return f"{stage}.{plan[stages.index(stage)][int(unit)]}.{rest}"


def _assert_moved(
    source: Ticket, result: Ticket, plan: StagePlans, stages: tuple[str, ...] = LAYERS
) -> None:
    network = blueprint(result.network, result.shape)
    assert list(result.rewind) == list(network.state_dict())
    assert list(result.mask) == list(prunable(network))
    for name, tensor in result.rewind.items():
        assert torch.equal(tensor, source.rewind[_origin(name, stages, plan)]), name
    for name, mask in result.mask.items():
        assert torch.equal(mask, source.mask[_origin(name, stages, plan)]), name


@pytest.mark.parametrize(("source", "target", "text", "expected"), TABLE)
def test_the_table_of_transformations(source: str, target: str, text: str, expected: str) -> None:
    width = "(width=1)" if source.startswith("resnet") else "(width=3,last_width=2)"
    before = ticket(source + width)
    units = tuple(int(unit) for unit in expected.split())
    stages = LAYERS if source.startswith("resnet") else ("hidden",)
    after = transform(before, target + width, text)
    assert str(after.network).startswith(target)
    _assert_moved(before, after, (units,) * len(stages), stages)


@st.composite
def _moves(draw: st.DrawFn, family: Family) -> tuple[str, str, Plan]:
    """A source, a target, and any plan between them that is valid."""
    source, target = draw(st.sampled_from(family.pairs()))
    stages = []
    for place, (have, want) in enumerate(
        zip(family.members[source], family.members[target], strict=True)
    ):
        fixed = family.fixed(place)
        size = max(want - fixed, 0)
        free = st.integers(fixed, have - 1) if size else st.nothing()
        rest = draw(st.lists(free, min_size=size, max_size=size))
        stages.append((*range(fixed), *rest))
    return source, target, Plan(tuple(stages))


@st.composite
def _stretches(draw: st.DrawFn, family: Family) -> tuple[str, str, Plan, Plan]:
    """A source, a deeper target, a plan that leaves out no unit, and one of those back."""
    deeper = [
        (s, t)
        for s, t in family.pairs()
        if all(h <= w for h, w in zip(family.members[s], family.members[t], strict=True))
    ]
    source, target = draw(st.sampled_from(deeper))
    there, back = [], []
    for place, (have, want) in enumerate(
        zip(family.members[source], family.members[target], strict=True)
    ):
        fixed, extra = family.fixed(place), want - have
        free = list(range(fixed, have))
        again = st.sampled_from(free) if extra else st.nothing()
        more = draw(st.lists(again, min_size=extra, max_size=extra))
        units = (*range(fixed), *draw(st.permutations(free + more)))
        places = [[i for i, u in enumerate(units) if u == unit] for unit in range(have)]
        there.append(units)
        back.append(tuple(draw(st.sampled_from(found)) for found in places))
    return source, target, Plan(tuple(there)), Plan(tuple(back))


def _check_any_plan(family: Family, data: st.DataObject) -> None:
    source, target, plan = data.draw(_moves(family))
    before = ticket(source, family.shape)
    after = transform(before, target, plan)
    assert str(after.network) == str(canonical(target))
    _assert_moved(before, after, plan.stages, family.stages)
    ends = anatomy(source, family.shape), anatomy(target, family.shape)
    for text in (spell(plan, *ends), after.origin["history"][0]["transform"]):
        assert resolve(text, *ends) == plan


def _check_there_and_back(family: Family, data: st.DataObject) -> None:
    source, target, stretch, inverse = data.draw(_stretches(family))
    before = ticket(source, family.shape)
    back = transform(transform(before, target, stretch), source, inverse)
    assert list(back.rewind) == list(before.rewind)
    assert all(torch.equal(back.rewind[name], t) for name, t in before.rewind.items())
    assert list(back.mask) == list(before.mask)
    assert all(torch.equal(back.mask[name], m) for name, m in before.mask.items())


@pytest.mark.parametrize("name", FAMILIES)
def test_the_families_are_as_told(name: str) -> None:
    family = FAMILIES[name]
    for member, depths in family.members.items():
        found = anatomy(member, family.shape)
        assert found.family == name.partition(" ")[0]
        assert tuple(len(stage.units) for stage in found.stages) == depths
    assert any(source != target for source, target in family.pairs()) or len(family.members) == 1


@pytest.mark.parametrize("name", NARROW)
@settings(max_examples=20)
@given(data=st.data())
def test_any_valid_plan_moves_every_tensor(name: str, data: st.DataObject) -> None:
    _check_any_plan(FAMILIES[name], data)


@pytest.mark.parametrize("name", sorted(WIDE))
@settings(max_examples=2, phases=[Phase.generate])
@given(data=st.data())
def test_any_valid_plan_moves_every_tensor_of_a_wide_network(
    name: str, data: st.DataObject
) -> None:
    _check_any_plan(FAMILIES[name], data)


@pytest.mark.parametrize("name", NARROW)
@settings(max_examples=15)
@given(data=st.data())
def test_stretch_and_squeeze_by_the_inverse(name: str, data: st.DataObject) -> None:
    _check_there_and_back(FAMILIES[name], data)


@pytest.mark.parametrize("name", sorted(WIDE))
@settings(max_examples=2, phases=[Phase.generate])
@given(data=st.data())
def test_stretch_and_squeeze_by_the_inverse_of_a_wide_network(
    name: str, data: st.DataObject
) -> None:
    _check_there_and_back(FAMILIES[name], data)


@pytest.mark.parametrize("name", NARROW)
@settings(max_examples=20)
@given(data=st.data())
def test_a_plan_that_does_not_fill_its_target_is_refused(name: str, data: st.DataObject) -> None:
    family = FAMILIES[name]
    source, target, plan = data.draw(_moves(family))
    place = data.draw(st.sampled_from(range(len(family.stages))))
    units, have = plan.stages[place], family.members[source][place]
    breaks = [(*units, 0)]
    if units:
        position = data.draw(st.integers(0, len(units) - 1))
        head, tail = units[:position], units[position + 1 :]
        breaks += [(*head, *tail), (*head, have, *tail)]
        if family.fixed(place) and position > 0:
            breaks.append((*head, 0, *tail))
        if family.fixed(place) and position == 0 and have > 1:
            breaks.append((1, *tail))
    broken = data.draw(st.sampled_from(breaks))
    stages = (*plan.stages[:place], broken, *plan.stages[place + 1 :])
    with pytest.raises(ElthError, match=f"^stage {family.stages[place]}: "):
        transform(ticket(source, family.shape), target, Plan(stages))


@pytest.mark.parametrize("name", NARROW)
def test_where_no_plan_can_fill_the_target_every_notation_is_refused(name: str) -> None:
    family = FAMILIES[name]
    pairs = {(s, t) for s in family.members for t in family.members} - set(family.pairs())
    assert bool(pairs) == (name in {"vgg", "mlp"})
    for source, target in pairs:
        ends = anatomy(source, family.shape), anatomy(target, family.shape)
        for text in STEPS:
            with pytest.raises(ElthError, match="^stage "):
                resolve(text, *ends)


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


def test_a_tensor_that_the_source_lacks_is_named() -> None:
    with pytest.raises(
        ElthError, match="nothing fills tensor 'bn1.weight' .* the source has no 'bn1.weight'"
    ):
        transform(ticket("resnet14(bn_affine=false,width=1)"), "resnet20(width=1)")
    with pytest.raises(
        ElthError, match="nothing fills tensor 'layer2.0.downsample.0.weight' of the target"
    ):
        transform(ticket("resnet14(shortcut=pad,width=1)"), "resnet20(width=1)")
    with pytest.raises(ElthError, match="'stage1.0.conv.weight' .* shape \\(2, .* found \\(1, "):
        transform(ticket("vgg13(width=1)", DataShape(size=16)), "vgg19(width=2)")


def test_a_vgg_by_stage() -> None:
    before = ticket("vgg13(width=1)", DataShape(size=16))
    text = "0 1 | 0 1 | 0 1 1 1 | 0 1 1 1 | 0 1 1 1"
    after = transform(before, "vgg19(width=1)", text)
    _assert_moved(before, after, ((0, 1),) * 2 + ((0, 1, 1, 1),) * 3, STAGES)
    assert after.origin["history"][0]["transform"] == "append"
    assert after.origin["history"][0]["plan"][-1] == []


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
    names = ["conv1.weight", "layer1.1.bn1.bias"]
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


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("resnet20(bn_affine=false,width=1)", "bn1.weight"),
        ("resnet20(shortcut=pad,width=1)", "layer2.0.downsample.0.weight"),
    ],
)
def test_nothing_of_a_source_is_left_behind_silently(target: str, name: str) -> None:
    message = f"tensor '{name}' of the source has no place in the target: the two networks differ"
    with pytest.raises(ElthError, match=re.escape(message)):
        transform(ticket("resnet14(width=1)"), target)


def test_units_with_two_digits_are_not_mixed_up() -> None:
    before = ticket("resnet110(width=1)")
    units = (0, *range(17, 0, -1))
    after = transform(before, "resnet110(width=1)", " ".join(str(u) for u in units))
    _assert_moved(before, after, (units,) * 3)
