"""What is written down of networks and criteria is what the code says."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
from torch import nn

from elth import facts, networks
from elth.criteria import CRITERIA, NAMES
from elth.data import info
from elth.errors import ElthError
from elth.networks import (
    NETWORKS,
    DataShape,
    NetworkSpec,
    blueprint,
    build,
    is_listed,
    macs,
    prunable,
    smallest_norm,
)
from elth.streams import stream

SHAPES = {
    "1x8x8/10": info("digits").shape,
    "1x28x28/10": info("mnist").shape,
    "3x32x32/10": info("cifar10").shape,
    "3x224x224/1000": info("imagenet").shape,
    "3x224x224/10": info("cifar10(size=224)").shape,
}


def test_the_file_is_what_the_code_says() -> None:
    """Every entry is worked out again, with torch."""
    assert facts.text() == facts.PATH.read_text(encoding="utf-8"), "out of date: make facts"


def test_every_network_is_told_of() -> None:
    found = facts.known()["networks"]
    assert list(found) == [*NETWORKS, *facts.WITH_OPTIONS]
    for name, entry in found.items():
        assert set(entry["shapes"]) <= set(SHAPES)
        for text in entry["shapes"]:
            told = asdict(networks.facts(name, SHAPES[text]))
            assert json.loads(json.dumps(told)) == {
                "anatomy": entry["anatomy"],
                **entry["shapes"][text],
            }


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet20", DataShape()),
        ("vgg13(fc=3)", DataShape()),
        ("resnet20(width=8)", DataShape()),  # from here on not written down
        ("resnet20(shortcut=pad)", DataShape()),
        ("mlp2", DataShape(classes=7)),
    ],
)
def test_facts_are_those_of_the_network(name: str, shape: DataShape) -> None:
    network = blueprint(name, shape)
    sizes = {weight: network.get_parameter(weight).numel() for weight in prunable(network)}
    assert networks.facts(name, shape) == networks.Facts(
        anatomy=network.anatomy,
        layers=len(sizes),
        prunable=sum(sizes.values()),
        unpruned=sum(sizes[weight] for weight in network.anatomy.unpruned),
        macs=macs(NetworkSpec.parse(name), shape),
        norm_values=smallest_norm(build(name, shape, generator=stream(0, "init")), shape)[1],
        strided_pixels=tuple(
            module.in_channels
            for module in network.modules()
            if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
            if module.stride == (2, 2)
        ),
    )


@pytest.mark.parametrize(
    ("name", "shape"), [("resnet18", DataShape(size=8)), ("resnet21", DataShape())]
)
def test_what_cannot_be_built_has_no_facts(name: str, shape: DataShape) -> None:
    with pytest.raises(ElthError) as expected:
        blueprint(name, shape)
    with pytest.raises(ElthError) as refused:
        networks.facts(name, shape)
    assert str(refused.value) == str(expected.value)


def test_which_networks_are_listed() -> None:
    shape = DataShape(channels=3, size=32, classes=10)
    assert is_listed("resnet20", shape)
    assert is_listed("resnet20(width=16)", shape), "that is its default"
    assert not is_listed("resnet20(width=8)", shape)
    assert not is_listed("resnet20", DataShape(channels=3, size=40, classes=10))


def test_the_names_of_the_criteria() -> None:
    assert tuple(CRITERIA) == NAMES
