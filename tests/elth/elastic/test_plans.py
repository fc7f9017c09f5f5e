"""Plans: every transformation of the paper, the notation, its refusals, labels and explanations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elth.elastic import Plan, explain, label, resolve, spell
from elth.elastic.plans import check
from elth.errors import ElthError
from elth.networks import Anatomy, DataShape
from tests.elth.helpers import anatomy, staged

CIFAR = DataShape()

TABLE = [
    ("resnet20", "resnet32", "append:1,2", "0 1 2 1 2"),
    ("resnet20", "resnet32", "append", "0 1 2 1 2"),
    ("resnet20", "resnet32", "auto", "0 1 2 1 2"),
    ("resnet20", "resnet32", "interpolate:1,2", "0 1 1 2 2"),
    ("resnet20", "resnet32", "interpolate", "0 1 1 2 2"),
    ("resnet32", "resnet56", "append:1,2,3,4", "0 1 2 3 4 1 2 3 4"),
    ("resnet32", "resnet56", "append:1-4", "0 1 2 3 4 1 2 3 4"),
    ("resnet32", "resnet56", "append", "0 1 2 3 4 1 2 3 4"),
    ("resnet32", "resnet56", "interpolate:1,2,3,4", "0 1 1 2 2 3 3 4 4"),
    ("resnet32", "resnet56", "interpolate", "0 1 1 2 2 3 3 4 4"),
    ("resnet32", "resnet56", "append:1,2", "0 1 2 1 2 1 2 3 4"),
    ("resnet32", "resnet56", "interpolate:1,2", "0 1 1 1 2 2 2 3 4"),
    ("resnet32", "resnet56", "append:1", "0 1 1 1 1 1 2 3 4"),
    ("resnet32", "resnet56", "interpolate:1", "0 1 1 1 1 1 2 3 4"),
    ("resnet20", "resnet56", "interpolate:1,2x4", "0 1 1 1 1 2 2 2 2"),
    ("resnet20", "resnet56", "interpolate:1,2x2+append", "0 1 1 2 2 1 1 2 2"),
    ("resnet56", "resnet32", "drop", "0 1 2 3 4"),
    ("resnet56", "resnet32", "auto", "0 1 2 3 4"),
    ("resnet56", "resnet32", "drop:5-8", "0 1 2 3 4"),
    ("resnet56", "resnet32", "drop:1,2,3,4", "0 5 6 7 8"),
    ("resnet56", "resnet32", "drop:1,3,5,7", "0 2 4 6 8"),
    # As many distinct units as can be, as few times as can be, earlier ones first.
    ("resnet32", "resnet44", "append", "0 1 2 1 2 3 4"),
    ("resnet32", "resnet44", "interpolate", "0 1 1 2 2 3 4"),
    ("resnet20", "resnet44", "append", "0 1 2 1 2 1 2"),
    ("resnet20", "resnet44", "interpolate", "0 1 1 1 2 2 2"),
    ("resnet14", "resnet20", "append", "0 1 1"),
    ("resnet32", "resnet32", "append", "0 1 2 3 4"),
    ("resnet32", "resnet32", "identity", "0 1 2 3 4"),
    ("resnet20", "resnet32", "append:1,2x2", "0 1 2 1 2"),
    ("resnet20", "resnet32", "interpolate:x2", "0 1 1 2 2"),
    ("resnet20", "resnet32", "append:2", "0 1 2 2 2"),
    ("resnet20", "resnet32", "drop:1+append", "0 2 2 2 2"),
    ("resnet20", "resnet32", "interpolate:1x2 + append:1", "0 1 1 1 2"),
    ("mlp2", "mlp3", "append", "0 0"),
    ("mlp2", "mlp3", "interpolate", "0 0"),
    ("mlp2", "mlp4", "auto", "0 0 0"),
    ("mlp3", "mlp4", "append", "0 0 1"),
    ("mlp3", "mlp4", "interpolate", "0 0 1"),
    ("mlp4", "mlp2", "drop", "0"),
    ("mlp4", "mlp2", "drop:0,1", "2"),
]

BY_STAGE = [
    ("resnet18", "resnet26", "append", "0 1 | 0 1 1 | 0 1 1 1 | 0 1 1"),
    ("resnet18", "resnet26", "interpolate", "0 1 | 0 1 1 | 0 1 1 1 | 0 1 1"),
    ("resnet18", "resnet34", "append", "0 1 1 | 0 1 1 1 | 0 1 1 1 1 1 | 0 1 1"),
    ("resnet26", "resnet34", "append", "0 1 1 | 0 1 1 2 | 0 1 2 1 2 3 | 0 1 2"),
    ("resnet26", "resnet34", "interpolate", "0 1 1 | 0 1 1 2 | 0 1 1 2 2 3 | 0 1 2"),
    ("resnet26", "resnet18", "drop", "0 1 | 0 1 | 0 1 | 0 1"),
    ("resnet34", "resnet26", "drop", "0 1 | 0 1 2 | 0 1 2 3 | 0 1 2"),
    ("vgg13", "vgg19", "append", "0 1 | 0 1 | 0 1 1 1 | 0 1 1 1 | 0 1 1 1"),
    ("vgg16", "vgg19", "append", "0 1 | 0 1 | 0 1 1 2 | 0 1 1 2 | 0 1 1 2"),
    ("vgg19", "vgg11", "drop", "0 | 0 | 0 1 | 0 1 | 0 1"),
    ("vgg13(fc=2)", "vgg13(fc=3)", "append", "0 1 | 0 1 | 0 1 | 0 1 | 0 1 | 0 0"),
    ("vgg13(fc=2)", "vgg19(fc=2)", "append", "0 1 | 0 1 | 0 1 1 1 | 0 1 1 1 | 0 1 1 1 | 0"),
    ("vgg13(fc=5)", "vgg13(fc=3)", "drop", "0 1 | 0 1 | 0 1 | 0 1 | 0 1 | 0 1"),
    ("vgg13(fc=2)", "vgg13", "drop", "0 1 | 0 1 | 0 1 | 0 1 | 0 1 | drop"),
    ("mobilenet", "mobilenet(repeats=7)", "append", "0 | 0 1 | 0 1 | 0 1 2 1 2 3 4 5 | 0 1"),
    ("mobilenet", "mobilenet(repeats=2)", "drop", "0 | 0 1 | 0 1 | 0 1 2 | 0 1"),
    ("conv4", "conv4", "identity", "0 1 | 0 1 | 0"),
]


@pytest.mark.parametrize(("source", "target", "text", "expected"), TABLE)
def test_the_table_of_transformations(source: str, target: str, text: str, expected: str) -> None:
    units = tuple(int(unit) for unit in expected.split())
    before, after = anatomy(source), anatomy(target)
    assert resolve(text, before, after).stages == (units,) * len(before.stages)
    assert resolve(expected, before, after) == resolve(text, before, after)


@pytest.mark.parametrize(("source", "target", "text", "expected"), BY_STAGE)
def test_the_table_by_stage(source: str, target: str, text: str, expected: str) -> None:
    ends = anatomy(source, CIFAR), anatomy(target, CIFAR)
    stages = [
        tuple(int(u) for u in part.removesuffix("drop").split()) for part in expected.split(" | ")
    ]
    stages += [()] * (len(ends[0].stages) - len(stages))  # a tail that neither VGG has
    plan = resolve(text, *ends)
    assert plan.stages == tuple(stages)
    assert resolve(expected, *ends) == plan
    if text == "interpolate":
        return
    assert resolve("auto", *ends) == plan
    assert label(plan, *ends) == text
    assert spell(plan, *ends) == (expected if len(set(stages)) > 1 else "0 1")


def test_a_part_for_each_stage() -> None:
    plan = resolve("append:2|interpolate| 0 1 2 2 1", anatomy("resnet20"), anatomy("resnet32"))
    assert plan.stages == ((0, 1, 2, 2, 2), (0, 1, 1, 2, 2), (0, 1, 2, 2, 1))


VGG = (anatomy("vgg13", CIFAR), anatomy("vgg16", CIFAR))


@pytest.mark.parametrize("tail", ["", "|append", "|drop", "|identity", "|auto"])
def test_a_stage_that_is_empty_in_both_need_not_be_written(tail: str) -> None:
    plan = resolve(f"0 1|0 1|0 1 1|append|interpolate{tail}", *VGG)
    assert plan == resolve("append", *VGG)
    assert plan.stages[-1] == ()
    assert spell(plan, *VGG) == "0 1 | 0 1 | 0 1 1 | 0 1 1 | 0 1 1"
    assert resolve(spell(plan), *VGG) == plan
    assert spell(plan) == "0 1 | 0 1 | 0 1 1 | 0 1 1 | 0 1 1 | drop"


def test_one_part_is_for_the_stages_that_are_not_empty_in_both() -> None:
    same = (VGG[0], VGG[0])
    assert resolve("0 1", *same).stages == ((0, 1),) * 5 + ((),)
    assert label(resolve("0 1", *same), *same) == "identity"


def test_parts_that_are_too_few_or_too_many() -> None:
    message = r"has 4 parts; these networks have 6 stages \(5 of them with units\): give one part"
    with pytest.raises(ElthError, match=message):
        resolve("append|append|append|append", *VGG)
    with pytest.raises(ElthError, match="stage tail: the plan fills 1 units"):
        resolve("0 1|0 1|0 1 1|0 1 1|0 1 1|0", *VGG)
    with pytest.raises(ElthError, match="has 5 parts; these networks have 6 stages: give one"):
        resolve("0 1|0 1|0 1|0 1|0 1", anatomy("vgg13(fc=2)", CIFAR), anatomy("vgg13", CIFAR))


def test_explain_leaves_out_a_stage_that_is_empty_in_both() -> None:
    lines = explain(resolve("append", *VGG), *VGG).splitlines()
    assert lines[0] == "source -> target: append"
    assert [line.split()[0] for line in lines[2:]] == [f"stage{i}" for i in range(1, 6)]
    more = anatomy("vgg13(fc=2)", CIFAR), VGG[0]
    assert explain(resolve("drop", *more), *more).splitlines()[-1].endswith("unit 0 dropped")


def test_what_cannot_be_replicated_names_its_stage() -> None:
    with pytest.raises(ElthError, match="stage stage1: 1 units are to fill 2, and none of them"):
        resolve("auto", anatomy("vgg11", CIFAR), VGG[0])
    with pytest.raises(ElthError, match="stage tail: 0 units are to fill 1, and none of them"):
        resolve("auto", VGG[0], anatomy("vgg13(fc=2)", CIFAR))
    with pytest.raises(ElthError, match="found imagenet-resnet .* and imagenet-bottleneck-resnet"):
        resolve("auto", anatomy("resnet34", CIFAR), anatomy("resnet50", CIFAR))


def test_mlp1_has_no_free_unit() -> None:
    assert resolve("drop", anatomy("mlp3"), anatomy("mlp1")).stages == ((),)
    with pytest.raises(
        ElthError, match="stage hidden: 0 units are to fill 1, and none of them may"
    ):
        resolve("auto", anatomy("mlp1"), anatomy("mlp2"))
    with pytest.raises(ElthError, match="stage hidden: the source has no unit 0; it has none"):
        resolve("0", anatomy("mlp1"), anatomy("mlp2"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1 2", r"stage layer1: the plan fills 3 units \(0 1 2\), the target has 5"),
        ("0 1 2 3 1", "stage layer1: the source has no unit 3; it has units 0 to 2"),
        ("0 1 0 2 2", "stage layer1: unit 0 cannot fill place 2: unit 0 is fixed"),
        ("1 1 1 2 2", "stage layer1: unit 1 cannot fill place 0: unit 0 is fixed, as it changes"),
        ("append:0", "stage layer1: unit 0 is fixed.*'append:0' can name units 1 2$"),
        ("interpolate:0,1", "'interpolate:0,1' can name units 1 2"),
        ("drop:0", "'drop:0' can name units 1 2"),
        ("append:1-4", "stage layer1: the source has no unit 3; it has units 0 to 2"),
        (
            "append:1x2",
            r"stage layer1: 'append:1x2' makes 4 units \(0 1 1 2\) of 3, the target has",
        ),
        ("identity", r"stage layer1: 'identity' makes 3 units \(0 1 2\) of 3, the target has 5"),
        ("drop:1", r"stage layer1: 'drop:1' makes 2 units \(0 2\) of 3, the target has 5"),
        ("drop", "stage layer1: 'drop' can only squeeze; 3 units are to fill 5: use append or in"),
        ("interpolate:1,2x4+append", "stage layer1: 'append' can only stretch; 9 units are to fil"),
        ("append+append", "'append' is not the last step and so must say how often, as append:x2"),
        ("append:1+append", "'append:1' is not the last step.*must say how often, as append:1x2"),
        ("apend", r"unknown plan 'apend'; did you mean 'append'\? \(there is: append, interp"),
        ("", "cannot read the plan '': write append, interpolate, drop, auto or identity, with"),
        ("append,1", "cannot read the plan 'append,1'"),
        ("Append", "cannot read the plan 'Append'"),
        ("0 1 a", "cannot read the plan '0 1 a'"),
        ("0 -1 1 2 2", "cannot read the plan '0 -1 1 2 2'"),
        ("append:1,", "cannot read the plan 'append:1,'"),
        ("append:4-1", "cannot read the units '4-1': write a range as 1-4"),
        ("append:1-2-3", "cannot read the units '1-2-3': write a range as 1-4"),
        ("append:1,1", "a unit is named twice in '1,1'"),
        ("append:1-2,2", "a unit is named twice in '1-2,2'"),
        ("append:1x0", "'append:1x0': a unit is there at least once; leave it out with drop"),
        ("drop:1x2", "'drop:1x2': drop takes no times"),
        ("auto:x2", "'auto:x2': auto takes no times"),
        ("identity:x2", "'identity:x2': identity takes no times"),
        ("auto:1", "'auto:1': auto takes no units; name append or drop"),
        ("identity:1", "'identity:1': identity takes no units; name append or drop"),
        ("append|append", "'append.append' has 2 parts; these networks have 3 stages: give one"),
    ],
)
def test_refusals_from_resnet20_to_resnet32(text: str, message: str) -> None:
    with pytest.raises(ElthError, match=message):
        resolve(text, anatomy("resnet20"), anatomy("resnet32"))


@pytest.mark.parametrize("text", ["append", "interpolate", "append:1"])
def test_a_squeeze_is_no_stretch(text: str) -> None:
    with pytest.raises(ElthError, match="can only stretch; 5 units are to fill 3: use drop"):
        resolve(text, anatomy("resnet32"), anatomy("resnet20"))


def test_a_refusal_names_the_stage() -> None:
    with pytest.raises(ElthError, match="stage layer3: the source has no unit 7"):
        resolve("0 1 1|0 1 1|0 1 7", anatomy("resnet14"), anatomy("resnet20"))


def test_families_do_not_mix() -> None:
    message = "one family of networks: found cifar-resnet with 3 stages and mlp with 1"
    with pytest.raises(ElthError, match=message):
        resolve("auto", anatomy("resnet20"), anatomy("mlp2"))
    with pytest.raises(ElthError, match=message):
        check(Plan(((0,),)), anatomy("resnet20"), anatomy("mlp2"))
    with pytest.raises(ElthError, match="found made up with 1 stages and made up with 2"):
        resolve("auto", staged(2), staged(2, 2))


def test_check_refuses_another_number_of_stages() -> None:
    with pytest.raises(ElthError, match="the plan has 1 stages, the target 3"):
        check(Plan(((0, 1, 1),)), anatomy("resnet14"), anatomy("resnet20"))


def test_only_the_last_units_are_dropped_by_default_and_fixed_ones_stay() -> None:
    both_ends = staged(5, fixed=(0, 4))
    with pytest.raises(ElthError, match="unit 4 cannot fill place 2"):
        resolve("drop", both_ends, staged(3))
    assert resolve("drop", staged(5), staged(3)).stages == ((0, 1, 2),)


@pytest.mark.parametrize(
    ("source", "target", "texts", "expected"),
    [
        ("resnet14", "resnet20", ("append", "interpolate", "0 1 1", "auto", "append:1"), "append"),
        ("resnet20", "resnet32", ("append:1,2", "append:1-2", "auto", "0 1 2 1 2"), "append"),
        ("resnet20", "resnet32", ("interpolate:1,2", "0 1 1 2 2"), "interpolate"),
        ("resnet32", "resnet56", ("append:1,2", "0 1 2 1 2 1 2 3 4"), "append:1,2"),
        ("resnet32", "resnet56", ("append:1", "interpolate:1"), "append:1"),
        ("resnet32", "resnet56", ("interpolate:1-2", "interpolate:1,2x3"), "interpolate:1,2"),
        ("resnet20", "resnet56", ("interpolate:1,2x4", "interpolate"), "interpolate"),
        (
            "resnet20",
            "resnet56",
            ("interpolate:1,2x2+append", "interpolate:x2+append"),
            "0 1 1 2 2 1 1 2 2",
        ),
        ("resnet56", "resnet32", ("drop", "auto", "drop:5-8", "0 1 2 3 4"), "drop"),
        ("resnet56", "resnet32", ("drop:1-4", "0 5 6 7 8"), "drop:1,2,3,4"),
        ("resnet56", "resnet32", ("drop:1,3,5,7",), "drop:1,3,5,7"),
        ("resnet20", "resnet20", ("append", "auto", "0 1 2", "identity"), "identity"),
        ("resnet20", "resnet32", ("0 2 2 2 2",), "0 2 2 2 2"),
        (
            "resnet20",
            "resnet32",
            ("append|append|interpolate",),
            "0 1 2 1 2 | 0 1 2 1 2 | 0 1 1 2 2",
        ),
        ("mlp3", "mlp1", ("drop", "auto", "drop:0,1"), "drop"),
        ("mlp1", "mlp1", ("append", "drop", "identity"), "identity"),
    ],
)
def test_labels(source: str, target: str, texts: tuple[str, ...], expected: str) -> None:
    ends = (anatomy(source), anatomy(target))
    assert {label(resolve(text, *ends), *ends) for text in (*texts, expected)} == {expected}


def test_labels_of_stages_that_differ() -> None:
    drawn = "0 1 | 0 1 | 0 2 2 1 | 0 1 1 1 | 0 1 2 2"
    ends = anatomy("vgg16", CIFAR), anatomy("vgg19", CIFAR)
    assert label(resolve(drawn, *ends), *ends) == drawn
    mixed = (staged(2, 4), staged(3, 3))
    assert label(resolve("auto", *mixed), *mixed) == "auto"


@st.composite
def _plans(draw: st.DrawFn) -> tuple[Plan, Anatomy, Anatomy]:
    """Random valid plans: stages with or without fixed units, empty ones too."""
    fixed = draw(st.sampled_from([(), (0,)]))
    stages: list[tuple[int, ...]] = []
    depths: list[int] = []
    for _ in range(draw(st.integers(1, 3))):
        depth = draw(st.integers(len(fixed), 6))
        free = list(range(len(fixed), depth))
        place = st.sampled_from(free) if free else st.nothing()
        rest = draw(st.lists(place, max_size=8)) if free else []
        stages.append((*fixed, *(sorted(rest) if draw(st.booleans()) else rest)))
        depths.append(depth)
    plan = Plan(tuple(stages))
    return plan, staged(*depths, fixed=fixed), staged(*map(len, stages), fixed=fixed)


@given(_plans())
def test_a_label_means_its_plan(case: tuple[Plan, Anatomy, Anatomy]) -> None:
    plan, source, target = case
    check(plan, source, target)
    text = label(plan, source, target)
    assert resolve(text, source, target) == plan
    assert label(resolve(text, source, target), source, target) == text


@given(_plans())
def test_a_plan_spelled_out_is_read_back(case: tuple[Plan, Anatomy, Anatomy]) -> None:
    plan, source, target = case
    assert resolve(spell(plan), source, target) == plan
    assert resolve(spell(plan, source, target), source, target) == plan


@given(_plans())
def test_every_plan_can_be_explained(case: tuple[Plan, Anatomy, Anatomy]) -> None:
    plan, source, target = case
    lines = explain(plan, source, target).splitlines()
    told = [s.name for s, t in zip(source.stages, target.stages, strict=True) if s.units or t.units]
    names = told or [stage.name for stage in source.stages]
    assert [line.split()[0] for line in lines[2:]] == names
    assert lines[0] == f"source -> target: {label(plan, source, target)}"


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(["append", "interpolate"]))
def test_defaults_replicate_evenly_and_earlier_units_first(
    depth: int, more: int, operation: str
) -> None:
    source, target = staged(depth + 1), staged(depth + 1 + more)
    (units,) = resolve(operation, source, target).stages
    counts = [units.count(unit) for unit in range(depth + 1)]
    assert counts[0] == 1
    assert counts[1:] == sorted(counts[1:], reverse=True)
    assert counts[1] - counts[-1] <= 1
    if operation == "interpolate":
        assert list(units) == sorted(units)


def test_spell() -> None:
    assert spell(Plan(((0, 1, 1), (0, 1, 1)))) == "0 1 1"
    assert spell(Plan(((0, 1, 1), (0, 1, 1, 1)))) == "0 1 1 | 0 1 1 1"
    assert spell(Plan(((0, 1), ()))) == "0 1 | drop"


def test_identity() -> None:
    assert Plan(((0, 1, 2), (0,))).is_identity
    assert not Plan(((0, 2, 1),)).is_identity
    assert not Plan(((0, 1, 1),)).is_identity


def test_explain_a_stretch() -> None:
    source, target = anatomy("resnet20"), anatomy("resnet32")
    text = explain(resolve("append", source, target), source, target, ("resnet20", "resnet32"))
    assert text.splitlines() == [
        "resnet20 -> resnet32: append",
        "  stage   source units  ->  target units, by source unit",
        "  layer1  0 1 2         ->  0 1 2 1 2                     units 1, 2 twice",
        "  layer2  0 1 2         ->  0 1 2 1 2                     units 1, 2 twice",
        "  layer3  0 1 2         ->  0 1 2 1 2                     units 1, 2 twice",
    ]


def test_explain_a_squeeze_and_uneven_counts() -> None:
    source, target = staged(6, 5), staged(4, 9)
    text = explain(resolve("drop:2,5 | 0 1 1 1 1 2 2 4 4", source, target), source, target)
    assert text.splitlines() == [
        "source -> target: 0 1 3 4 | 0 1 1 1 1 2 2 4 4",
        "  stage   source units  ->  target units, by source unit",
        "  stage1  0 1 2 3 4 5   ->  0 1 3 4                       units 2, 5 dropped",
        "  stage2  0 1 2 3 4     ->  0 1 1 1 1 2 2 4 4             unit 3 dropped; "
        "units 2, 4 twice; unit 1 4 times",
    ]
