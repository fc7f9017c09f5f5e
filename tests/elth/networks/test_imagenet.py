"""The ImageNet ResNets against torchvision's."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet

from elth import networks
from elth.errors import ElthError
from elth.networks import DataShape, blueprint, build, macs
from elth.networks._parts import PadShortcut
from elth.specs import Spec
from elth.streams import stream

IMAGENET = DataShape(size=224, classes=1000)
SMALL = DataShape(size=32, classes=5)

THEIRS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": resnet.resnet18,
    "resnet26": lambda **options: resnet.ResNet(resnet.BasicBlock, [2, 3, 4, 3], **options),
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
}


@pytest.mark.parametrize("name", THEIRS)
def test_names_and_shapes_are_those_of_torchvision(name: str) -> None:
    with torch.device("meta"):
        theirs = THEIRS[name]().state_dict()
    ours = blueprint(name, IMAGENET).state_dict()
    assert [(n, t.shape, t.dtype) for n, t in ours.items()] == [
        (n, t.shape, t.dtype) for n, t in theirs.items()
    ]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_forward_is_that_of_torchvision(name: str) -> None:
    ours = build(name, SMALL, generator=stream(0, "init")).eval()
    with torch.device("meta"):
        theirs = THEIRS[name](num_classes=5)
    theirs.load_state_dict(ours.state_dict(), assign=True)
    images = torch.randn(2, 3, 32, 32, generator=stream(0, "images"))
    with torch.no_grad():
        logits = ours(images)
        assert logits.shape == (2, 5)
        assert torch.equal(logits, theirs.eval()(images))


@pytest.mark.parametrize(
    ("name", "giga"), [("resnet18", 1.814), ("resnet26", 2.739), ("resnet34", 3.664)]
)
def test_macs_of_an_image_of_224_pixels(name: str, giga: float) -> None:
    assert round(macs(Spec(name), IMAGENET) / 1e9, 3) == giga


@pytest.mark.parametrize(
    ("name", "family", "depths"),
    [
        ("resnet18", "imagenet-resnet", [2, 2, 2, 2]),
        ("resnet26", "imagenet-resnet", [2, 3, 4, 3]),
        ("resnet34", "imagenet-resnet", [3, 4, 6, 3]),
        ("resnet50", "imagenet-bottleneck-resnet", [3, 4, 6, 3]),
    ],
)
def test_anatomy(name: str, family: str, depths: list[int]) -> None:
    anatomy = blueprint(name, SMALL).anatomy
    assert [len(stage.units) for stage in anatomy.stages] == depths
    assert [stage.name for stage in anatomy.stages] == ["layer1", "layer2", "layer3", "layer4"]
    assert anatomy.stages[1].units[:2] == ("layer2.0", "layer2.1")
    assert all(stage.fixed == (0,) for stage in anatomy.stages)
    assert (anatomy.family, anatomy.head, anatomy.unpruned) == (family, "fc", ())


def test_another_number_of_channels() -> None:
    shape = DataShape(channels=1, size=33, classes=4)
    assert blueprint("resnet18", shape).state_dict()["conv1.weight"].shape == (64, 1, 7, 7)
    network = build("resnet18", shape, generator=stream(0, "init"))
    assert network(torch.zeros(2, 1, 33, 33)).shape == (2, 4)


@pytest.mark.parametrize(
    ("name", "padded"),
    [
        ("resnet18", {2: (32, 32), 3: (64, 64), 4: (128, 128)}),
        ("resnet50", {1: (96, 96), 2: (128, 128), 3: (256, 256), 4: (512, 512)}),
    ],
)
def test_padded_shortcuts(name: str, padded: dict[int, tuple[int, int]]) -> None:
    spec = f"{name}(shortcut=pad)"
    plan = blueprint(spec, SMALL)
    found = {n: m for n, m in plan.named_modules() if isinstance(m, PadShortcut)}
    assert {n: (m.before, m.after, m.stride) for n, m in found.items()} == {
        f"layer{i}.0.downsample": (*zeros, 1 if i == 1 else 2) for i, zeros in padded.items()
    }
    whole = blueprint(name, SMALL).state_dict()
    assert list(plan.state_dict()) == [n for n in whole if "downsample" not in n]
    network = build(spec, SMALL, generator=stream(0, "init"))
    with torch.no_grad():
        assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


def test_a_small_image_is_refused() -> None:
    with pytest.raises(
        ElthError, match="an ImageNet-type ResNet halves its image five times .* 32, found 31"
    ):
        blueprint("resnet50", DataShape(size=31))


def test_torchvision_is_imported_by_one_module_which_none_imports_at_once() -> None:
    found = {
        path.stem
        for path in Path(networks.__file__).parent.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom) and "torchvision" in ast.unparse(node)
    }
    assert found == {"_torchvision"}
