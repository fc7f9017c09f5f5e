"""Networks from outside: any module of PyTorch, named by the module that it is in."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import elth
from elth import controls, masks, networks, plugins
from elth.checkpoints import Checkpoint
from elth.elastic import resolve
from elth.errors import ElthError
from elth.forward import draws
from elth.networks import DataShape, blueprint, build, canonical, facts, prunable
from elth.recipes import Recipe, Step
from elth.specs import Spec
from elth.streams import stream
from elth.tickets import Ticket
from elth.training import Training
from tests.elth.helpers import dataset

PLUGINS = Path(__file__).parents[2] / "plugins"
SHAPE = DataShape(channels=1, size=8, classes=10)


@pytest.fixture(autouse=True)
def listed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """vit.py is a listed module; what a test lists besides is forgotten after it."""
    monkeypatch.setattr(plugins, "_in_use", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    plugins.use([PLUGINS / "vit.py"])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("outside_"):
            del sys.modules[name]
    plugins.sources.cache_clear()


def _module(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / f"{name}.py").write_text(f"import torch\nfrom torch import nn\n{text}")
    plugins.use([tmp_path / f"{name}.py"])


def _build(name: str, seed: int = 0) -> nn.Module:
    return build(name, SHAPE, generator=stream(seed, "init"))


def test_its_options_are_checked_as_ours() -> None:
    assert str(canonical("vit:vit( depth=4, width=32 )")) == "vit:vit(depth=4)"
    assert str(canonical("tiny_vit(dropout=0)")) == "tiny_vit(dropout=0.0)"
    assert networks.options("vit:vit") == {"depth": 2, "width": 32, "dropout": 0.1}
    for name, message in (
        ("vit:vit(deep=4)", "unknown option of network vit:vit 'deep'; did you mean 'depth'"),
        ("vit:vit(depth=x)", "option depth of network vit:vit is 'x'; expected a value like 2"),
        ("vit:vitt", r"unknown name in module vit 'vitt'; did you mean 'vit'\?"),
        ("vits:vit", "no module 'vits' is found: install it, set PYTHONPATH, or list its file"),
        ("tiny_vits", "unknown network 'tiny_vits'; did you mean 'tiny_vit'"),
        ("vit:PLACES", "unknown name in module vit 'PLACES'"),
        ("vit:NETWORKS", "vit:NETWORKS is no function of a network: expected def f"),
    ):
        with pytest.raises(ElthError, match=message):
            canonical(name)


def test_what_is_pruned_and_what_stays_whole() -> None:
    network = _build("vit:vit")
    assert prunable(network)[:4] == (
        "patches.weight",
        "blocks.0.attention.in_proj_weight",
        "blocks.0.attention.out_proj.weight",
        "blocks.0.mlp.0.weight",
    )
    found = facts("vit:vit", SHAPE)
    assert found.whole == {"places": 512, "LayerNorm": 5 * 64}
    assert found.prunable == sum(m.numel() for m in masks.ones(network).values()) == 16832
    assert found.macs > 16 * 16000
    assert found.anatomy.stages[0].units == ("blocks.0", "blocks.1")


def test_one_seed_gives_equal_bits_and_buffers_are_the_authors() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, same, other = (_build("vit:vit", seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["places"], other["places"])
    assert float(one["scale"]) == 2.0
    again = controls.reinit(Spec.parse("vit:vit"), SHAPE, 0)
    assert not torch.equal(again["places"], one["places"])


def test_a_blueprint_has_no_storage_and_disturbs_no_draws() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    network = blueprint("vit:vit(depth=3)", SHAPE)
    assert {p.device.type for p in network.parameters()} == {"meta"}
    assert torch.equal(torch.get_rng_state(), before)


def _ticket(name: str = "vit:vit") -> Ticket:
    network = _build(name)
    mask = {n: torch.rand(m.shape) < 0.5 for n, m in masks.ones(network).items()}
    return Ticket(
        network=canonical(name), shape=SHAPE, rewind=network.state_dict(), mask=mask, origin={}
    )


def test_its_tickets_are_kept_and_stretched(tmp_path: Path) -> None:
    ticket = _ticket()
    ticket.save(tmp_path / "ticket.safetensors")
    again = Ticket.load(tmp_path / "ticket.safetensors")
    assert masks.digest(again.mask) == masks.digest(ticket.mask)
    for plan, places in (("append", (0, 1, 0, 1)), ("interpolate", (0, 0, 1, 1))):
        deeper = elth.transform(again, "vit:vit(depth=4)", plan)
        name = "blocks.{}.attention.in_proj_weight"
        for place, unit in enumerate(places):
            assert torch.equal(deeper.mask[name.format(place)], ticket.mask[name.format(unit)])
            for of in ("norm1.bias", "attention.in_proj_bias"):
                assert torch.equal(
                    deeper.rewind[f"blocks.{place}.{of}"], ticket.rewind[f"blocks.{unit}.{of}"]
                )


def _recipe() -> Recipe:
    return Recipe(length=Step(3, "ep"), rewind=Step(0, "it"), batch_size=16, lr=0.01)


def _train(saved: Checkpoint | None = None, seed: int = 0) -> tuple[list[Checkpoint], Training]:
    data = dataset(48, shape=SHAPE)
    kept: list[Checkpoint] = []
    ticket = _ticket_of_ones()
    training = Training(
        ticket.make_network(), data, _recipe(), seed=seed, state=ticket.rewind, mask=ticket.mask
    )
    if saved is not None:
        training.resume(saved)
    for _ in training:
        kept.append(training.checkpoint())
    return kept, training


def _ticket_of_ones() -> Ticket:
    network = _build("vit:vit(dropout=0.5)")
    return Ticket(
        network=canonical("vit:vit(dropout=0.5)"),
        shape=SHAPE,
        rewind=network.state_dict(),
        mask=masks.ones(network),
    )


def test_what_it_draws_depends_on_the_seed_and_the_iteration_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    kept, training = _train()
    assert torch.equal(torch.get_rng_state(), before)  # nobody else's draws are disturbed
    torch.manual_seed(6)
    _, same = _train()
    assert training.engine.draws
    whole, again = training.state(), same.state()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    _, going_on = _train(kept[0])  # as after a kill at the end of the first epoch
    assert all(torch.equal(whole[name], tensor) for name, tensor in going_on.state().items())
    _, other = _train(seed=1)
    assert not torch.equal(other.state()["places"], whole["places"])


def test_dropout_is_really_drawn() -> None:
    """Or the test before this one would hold for nothing."""
    network = _build("vit:vit(dropout=0.5)").train()
    images = torch.randn(2, 1, 8, 8, generator=stream(0, "x"))
    assert not torch.equal(network(images), network(images))


@pytest.mark.parametrize(
    ("network", "drawn"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0)), False),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)), True),
        (nn.Sequential(nn.Linear(2, 2), nn.RReLU()), True),
        (nn.MultiheadAttention(4, 2, dropout=0.1), True),
        (nn.MultiheadAttention(4, 2), False),
    ],
)
def test_which_networks_draw(network: nn.Module, drawn: bool) -> None:
    assert draws(network) is drawn


def test_a_network_of_ours_draws_nothing() -> None:
    assert not draws(build("resnet14(width=2)", SHAPE, generator=stream(0, "init")))
    assert draws(_build("vit:vit(dropout=0.0)"))  # of which it is not known


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(shape): return 3", "outside_1:f gave a int; expected a torch.nn.Module"),
        ("def f(shape): return nn.ReLU()", "has no convolution, linear layer or attention"),
        (
            "def f(shape): return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))",
            "'1.weight' of outside_1:f has no shape yet: lazy modules cannot be used",
        ),
        (
            "def f(shape):\n    a = nn.Linear(64, 64)\n"
            "    return nn.Sequential(nn.Flatten(), a, a, nn.Linear(64, 10))",
            "'1.weight' and '2.weight' of outside_1:f are one tensor, which a mask cannot tell",
        ),
        (
            "def f(shape): return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))",
            r"outside_1:f gives \(1, 7\) for an image of 1x8x8, 10 classes; expected logits",
        ),
        (
            "def f(shape): return nn.Linear(3, 10)",
            "outside_1:f cannot take an image of 1x8x8, 10 classes: RuntimeError: mat1 and mat2",
        ),
        ("def f(shape, *, k): return nn.Linear(1, 1)", "option k of the network f has no default"),
        (
            "def f(shape): return nn.Linear(shape, 10)",
            r"making outside_1:f fails: TypeError: .* \(line \d+ of outside_1.py, in f\)",
        ),
        (
            "def f(): return nn.Linear(1, 10)",
            r"making outside_1:f fails: TypeError: .*given; it is called as outside_1:f\(SHAPE\)",
        ),
        (
            "import random\n"
            "class N(nn.Linear):\n"
            "    def forward(self, x): return super().forward(x.flatten(1)) * random.random()\n"
            "def f(shape): return N(64, 10)",
            "outside_1:f gives other logits when it is shown an image again",
        ),
        (
            "import random\n"
            "class N(nn.Linear):\n"
            "    def forward(self, x):\n"
            "        x = x.flatten(1)\n"
            "        return super().forward(x * random.random() if self.training else x)\n"
            "def f(shape): return N(64, 10)",
            "outside_1:f gives other logits when it is shown an image again",
        ),
        (
            "class N(nn.Linear):\n"
            "    def forward(self, x):\n"
            "        if x.any(): raise ValueError('boom')\n"
            "        return super().forward(x.flatten(1))\n"
            "def f(shape): return N(64, 10)",
            r"outside_1:f cannot take an image: ValueError: boom \(line 5 of outside_1.py",
        ),
        ("def g(shape): return 1", r"unknown name in module outside_1 'f' \(there is: g\)"),
        ("1 / 0", r"importing 'outside_1' \(.*outside_1.py\) fails: ZeroDivisionError: division"),
    ],
)
def test_what_is_no_network_is_refused(text: str, message: str, tmp_path: Path) -> None:
    _module(tmp_path, "outside_1", text)
    with pytest.raises(ElthError, match=message):
        facts("outside_1:f", SHAPE)


def test_a_network_without_anatomy(tmp_path: Path) -> None:
    _module(
        tmp_path,
        "outside_2",
        "def plain(shape, *, k: int = 0):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8 + k), nn.Linear(8 + k, 10))\n",
    )
    found = facts("outside_2:plain", SHAPE)
    assert (found.prunable, found.unpruned, found.layers) == (8 * 64 + 80, 0, 2)
    assert str(canonical("outside_2:plain(k=0)")) == "outside_2:plain"  # what 0 means, it knows
    other = facts("outside_2:plain(k=2)", SHAPE)
    assert resolve("auto", found.anatomy, found.anatomy).is_identity
    with pytest.raises(ElthError, match=r"outside_2:plain tells no anatomy, so no unit of it can"):
        resolve("auto", found.anatomy, other.anatomy)
    ticket = _ticket("outside_2:plain")
    with pytest.raises(ElthError, match="tells no anatomy, so it is not known which layer is its"):
        elth.move(ticket, DataShape(channels=1, size=8, classes=3), 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"stages": ["block"]}, "no module 'block' for its stage; did you mean 'blocks'"),
        ({"stages": ["norm"]}, "stage 'norm' is a LayerNorm; expected a nn.Sequential or a"),
        ({"head": "haed"}, "no module 'haed' for its head; did you mean 'head'"),
        ({"fixed": {"layers": (0,)}}, "fixed names 'layers', which is no stage"),
        ({"fixed": {"blocks": [-1]}}, "fixed names position -1 of stage 'blocks', which has posi"),
        ({"fixed": {"blocks": [0, 2]}}, "position 2 of stage 'blocks', which has positions 0 to 1"),
        ({"stages": ["blocks", "blocks"]}, "stages 'blocks' and 'blocks' have units in common"),
        ({"unpruned": ["x"]}, "unpruned names 'x', which is no parameter"),
        ({"unpruned": ["norm.weight"]}, "unpruned names 'norm.weight', which is never pruned"),
    ],
)
def test_an_anatomy_that_does_not_fit_is_refused(words: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"family": "vit", "stages": ["blocks"], "head": "head"}
    with pytest.raises(ElthError, match=message):
        elth.with_anatomy(_build("vit:vit"), **(given | words))  # type: ignore[arg-type]


WIDE = """
import elth

class Net(nn.Module):
    def __init__(self, shape, width, kind):
        super().__init__()
        convolution = nn.ConvTranspose2d if "transposed" in kind else nn.Conv2d
        groups = width // 2 if "grouped" in kind else 1
        self.kind = kind
        self.first = nn.Conv2d(shape.channels, width, 3, padding=1)
        self.second = convolution(width, width, 3, padding=1, groups=groups)
        self.norm = nn.GroupNorm(2, width) if kind == "normed" else nn.Identity()
        self.head = nn.Linear(2 * width if kind == "joined" else width, shape.classes)

    def forward(self, images):
        first = torch.relu(self.first(images))
        second = torch.relu(self.norm(self.second(first)))
        if self.kind == "joined":
            second = torch.cat((first, second), 1)
        return self.head(second.mean((2, 3)))

def net(shape, *, width: int = 4, kind: str = "plain"):
    return elth.with_anatomy(Net(shape, width, kind), family="net", head="head")
"""


def _doubled(kind: str) -> tuple[Ticket, Ticket]:
    narrow = canonical(f"outside_wide:net(kind={kind})")
    network = build(narrow, SHAPE, generator=stream(0, "init"))
    mask = {name: torch.rand(network.state_dict()[name].shape) < 0.6 for name in prunable(network)}
    before = Ticket(network=narrow, shape=SHAPE, rewind=network.state_dict(), mask=mask)
    return before, elth.change_width(before, f"outside_wide:net(kind={kind},width=8)", "double", 0)


@pytest.mark.parametrize("kind", ["plain", "transposed", "grouped", "transposed_grouped"])
def test_its_width_is_doubled_and_it_computes_the_same(kind: str, tmp_path: Path) -> None:
    _module(tmp_path, "outside_wide", WIDE)
    before, after = _doubled(kind)
    images = torch.randn(3, 1, 8, 8)
    expected, found = (one.make_network().eval()(images) for one in (before, after))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["normed", "joined"])
def test_one_that_would_compute_something_else_is_not_doubled(kind: str, tmp_path: Path) -> None:
    _module(tmp_path, "outside_wide", WIDE)
    with pytest.raises(
        ElthError, match=r"doubled, outside_wide:net\(kind=.* computes something els"
    ):
        _doubled(kind)


def test_stages_may_be_given_as_modules() -> None:
    network = _build("vit:vit(depth=3)")
    blocks = network.get_submodule("blocks")
    told = elth.with_anatomy(
        network, family="v", stages=[blocks], head="head", fixed={"blocks": [0]}
    )
    assert told is network
    (stage,) = vars(network)["anatomy"].stages
    assert (stage.name, len(stage.units), stage.fixed) == ("blocks", 3, (0,))


def test_its_version_is_declared_or_that_of_its_files(tmp_path: Path) -> None:
    assert networks.version("resnet20") == ""
    digest = networks.version("vit:vit")
    assert digest == networks.version("tiny_vit") == f"sha256:{plugins.sources('vit').digest}"
    _module(
        tmp_path,
        "outside_3",
        "import elth\n@elth.version(2)\ndef f(shape): return nn.Linear(1, 1)\n",
    )
    assert networks.version("outside_3:f") == "outside_3:2"


def test_a_plan_asks_for_it_without_torch(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n"
        "from elth import plugins, networks\n"
        f"plugins.use([{str(PLUGINS / 'vit.py')!r}])\n"
        "shape = networks.DataShape(channels=1, size=8, classes=10)\n"
        "found = networks.facts('tiny_vit(depth=3)', shape)\n"
        "assert 'torch' not in sys.modules\n"
        "print(found.prunable, len(found.anatomy.stages[0].units), networks.names()[-1])\n"
        "print(len(networks.tensor_shapes('vit:vit', shape)))\n"
    )
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "25024 3 tiny_vit\n32\n"


def test_a_declared_version_may_be_of_a_class_and_is_no_other_attribute(tmp_path: Path) -> None:
    _module(
        tmp_path,
        "outside_4",
        "import elth\n@elth.version(3)\nclass Net(nn.Linear):\n"
        "    version = 7\n    def __init__(self, shape): super().__init__(64, 10)\n"
        "class Other(Net):\n    pass\n"
        "class Plain(nn.Linear):\n    version = 7\n"
        "    def __init__(self, shape): super().__init__(64, 10)\n",
    )
    assert networks.version("outside_4:Net") == "outside_4:3"
    assert networks.version("outside_4:Plain").startswith("sha256:")


def test_one_that_no_seed_fixes_is_refused(tmp_path: Path) -> None:
    _module(
        tmp_path,
        "outside_5",
        "import numpy\ndef f(shape):\n    m = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
        "    with torch.no_grad(): m[1].weight.add_(float(numpy.random.rand()))\n    return m\n",
    )
    with pytest.raises(ElthError, match="'1.weight' of outside_5:f differs when it is made twice"):
        facts("outside_5:f", SHAPE)


def test_what_is_written_into_our_dict_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have no version."""
    monkeypatch.setitem(networks.NETWORKS, "mine", lambda shape: nn.Linear(1, 1))
    with pytest.raises(ElthError, match="unknown network 'mine'"):
        networks.version("mine")


def test_every_file_that_may_be_imported_is_in_the_digest(tmp_path: Path) -> None:
    lab = tmp_path / "outside_6"
    lab.mkdir()
    (lab / "__init__.py").write_text("from outside_6.parts import *\nfrom . import nets\n")
    (tmp_path / "outside_6" / "parts").mkdir()
    (lab / "parts" / "__init__.py").write_text("__all__ = ['layers']\n")
    (lab / "parts" / "layers.py").write_text("W = 1\n")
    (lab / "nets.py").write_text("import profile_of_lab\nfrom .parts.layers import W\n")
    (tmp_path / "profile_of_lab.py").write_text("")
    plugins.use([lab])
    assert set(plugins.sources("outside_6").files) == {
        "outside_6",
        "outside_6.nets",
        "outside_6.parts",
        "outside_6.parts.layers",
        "profile_of_lab",
    }


def test_a_helper_of_another_plugins_folder_is_refused(tmp_path: Path) -> None:
    for folder, name in (("a", "outside_7"), ("b", "outside_8")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "outside_helper.py").write_text("")
        (tmp_path / folder / f"{name}.py").write_text("import outside_helper\n")
        plugins.use([tmp_path / folder / f"{name}.py"])
    plugins.sources("outside_7")
    with pytest.raises(ElthError, match=r"imports 'outside_helper', which is .*a/.* here and not"):
        plugins.sources("outside_8")


def test_a_module_that_exits_is_told(tmp_path: Path) -> None:
    _module(tmp_path, "outside_9", "raise SystemExit(2)\n")
    with pytest.raises(ElthError, match=r"importing 'outside_9' \(.*\) fails: SystemExit: 2"):
        facts("outside_9:f", SHAPE)
