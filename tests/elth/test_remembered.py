"""What is known of networks and criteria without torch, and that it is what their code says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from elth import criteria, elastic, networks, remembered
from elth.errors import ElthError
from elth.networks import NETWORKS, DataShape, blueprint, build, macs, prunable, smallest_norm
from elth.networks._registry import cost
from elth.specs import Spec
from elth.streams import stream

pytestmark = pytest.mark.anywhere

ROOT = Path(__file__).parents[2]
ASKING = """\
import sys
sys.path.insert(0, {root!r})
from elth import apart, criteria, elastic, networks, remembered
from elth.networks import DataShape
from tests.elth import remembered_calls as calls
{code}
assert "torch" not in sys.modules and "numpy" not in sys.modules
print("beside" if apart._others else "alone")
"""


def _start(code: str, cache: Path, root: Path = ROOT) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", ASKING.format(root=str(root), code=code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(cache)},
    )


def _end(asking: subprocess.Popen[str]) -> list[str]:
    out, err = asking.communicate(timeout=100)
    assert (asking.returncode, err) == (0, "")
    return out.splitlines()


def _asked(code: str, cache: Path) -> list[str]:
    return _end(_start(code, cache))


def _kept(cache: Path) -> list[Path]:
    return sorted((cache / "elth" / "facts").iterdir())


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet20", DataShape()),
        ("vgg13(fc=3)", DataShape()),
        ("resnet20(width=8)", DataShape()),
        ("resnet20(shortcut=pad)", DataShape()),
        ("mlp2", DataShape(classes=7)),
        ("resnet18(bn_affine=false)", DataShape(size=64)),
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
        macs=macs(Spec.parse(name), shape),
        norm_values=smallest_norm(build(name, shape, generator=stream(0, "init")), shape)[1],
        strided_pixels=tuple(
            module.in_channels
            for module in network.modules()
            if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
            if module.stride == (2, 2)
        ),
        sizes=sizes,
        whole={
            kind: sum(
                parameter.numel()
                for module in network.modules()
                if type(module).__name__ == kind
                for parameter in module.parameters()
            )
            for kind in (
                {"BatchNorm2d"}
                if any(
                    isinstance(module, nn.BatchNorm2d) and module.affine
                    for module in network.modules()
                )
                else ()
            )
        },
        cost=cost(name, shape),
    )
    assert list(networks.tensor_shapes(name, shape).items()) == [
        (name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()
    ]


@pytest.mark.parametrize("function", [networks.facts, networks.tensor_shapes])
@pytest.mark.parametrize(
    ("name", "shape"), [("resnet18", DataShape(size=8)), ("resnet21", DataShape())]
)
def test_what_cannot_be_built_has_no_facts(name: str, shape: DataShape, function: Any) -> None:
    with pytest.raises(ElthError) as expected:
        blueprint(name, shape)
    with pytest.raises(ElthError) as refused:
        function(name, shape)
    assert str(refused.value) == str(expected.value)


def test_the_names_of_the_criteria() -> None:
    assert tuple(criteria.CRITERIA) == criteria.NAMES


EVERYTHING = """\
shape = DataShape()
for name in {names!r}:
    print(networks.canonical(name), networks.options(name.partition("(")[0]))
    print(networks.facts(name, shape))
    print(networks.tensor_shapes(name, shape))
for name in criteria.NAMES:
    print(criteria.options(name), criteria.needs_data(name))
print(criteria.check_settings("grasp", {{"temperature": 3, "mode": "eval"}}))
width = elastic.parse_width("double")
elastic.check_width(width, "resnet20", "resnet20(width=32)", shape)
"""


def _here(code: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    exec(code, {"networks": networks, "criteria": criteria, "elastic": elastic, **globals()})
    return capsys.readouterr().out.splitlines()


def _refused(call: str) -> str:
    return f"try:\n    {call}\nexcept ValueError as error:\n    print(type(error), error)\n"


def test_a_process_without_torch_is_told_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """First by a process beside it, then from the files; and it is refused the same."""
    names = [*NETWORKS, "vgg13(fc=2, init=kaiming_uniform)", "mlp1(width=4)"]
    code = EVERYTHING.format(names=names)
    expected = _here(code, capsys)
    assert len(expected) == 3 * len(names) + len(criteria.NAMES) + 1
    assert _asked(code, tmp_path) == [*expected, "beside"]
    assert _asked(code, tmp_path) == [*expected, "alone"]
    for call in (
        'networks.canonical("resnet21")',
        'networks.canonical("resnet20(width=a)")',
        'networks.canonical("resnet20(shortcut=padd)")',
        'criteria.check_settings("snip", {"samples": -1})',
        'criteria.options("snop")',
    ):
        told = _here(_refused(call), capsys)
        assert len(told) == 1, call
        assert _asked(_refused(call), tmp_path) == [*told, "alone"]
    code = _refused('networks.facts("resnet18", DataShape(size=8))')
    assert _asked(code, tmp_path) == [*_here(code, capsys), "beside"]


COUNTED = "print(remembered.remembered(calls.count, {place!r}, 1, also={also!r}))"


def _counted(tmp_path: Path, also: str = "") -> list[str]:
    code = COUNTED.format(place=str(tmp_path / "count"), also=also)
    return _asked(code, tmp_path / "cache")


def test_it_is_asked_once(tmp_path: Path) -> None:
    assert _counted(tmp_path) == ["[1, {'more': 2}]", "beside"]
    assert _counted(tmp_path) == ["[1, {'more': 2}]", "alone"]
    assert len(_kept(tmp_path / "cache")) == 1


def test_what_it_depends_on_besides_is_part_of_the_question(tmp_path: Path) -> None:
    for time, also in enumerate(("", "a", "b"), 1):
        assert _counted(tmp_path, also)[0].startswith(f"[{time}, ")
    assert _counted(tmp_path, "a") == ["[2, {'more': 2}]", "alone"]


def _written(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


HARM: dict[str, Callable[[Path], Any]] = {
    "cut short": lambda path: _written(path, path.read_text(encoding="utf-8")[:-3]),
    "another number": lambda path: _written(
        path, path.read_text(encoding="utf-8").replace("more", "less")
    ),
    "empty": lambda path: _written(path, ""),
    "not text": lambda path: path.write_bytes(b"\xff\xfe\n{}"),
    "a folder": _folder,
}


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_file_is_looked_past(harm: str, tmp_path: Path) -> None:
    _counted(tmp_path)
    (file,) = _kept(tmp_path / "cache")
    HARM[harm](file)
    assert _counted(tmp_path) == ["[2, {'more': 2}]", "beside"]
    if harm != "a folder":
        assert _counted(tmp_path) == ["[2, {'more': 2}]", "alone"]


def test_a_place_that_cannot_be_written_to_is_looked_past(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, where a folder should be", encoding="utf-8")
    for time in (1, 2):
        assert _counted(tmp_path) == [f"[{time}, {{'more': 2}}]", "beside"]


def test_several_processes_may_ask_at_once(tmp_path: Path) -> None:
    code = 'print(networks.facts("mlp1", DataShape()).prunable)'
    asking = [_start(code, tmp_path) for _ in range(3)]
    found = [_end(one)[0] for one in asking]
    assert found == [str(networks.facts("mlp1", DataShape()).prunable)] * 3
    assert _asked(code, tmp_path) == [found[0], "alone"]
    assert all(path.suffix == ".json" for path in _kept(tmp_path))


def test_other_sources_and_versions_are_another_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "elth"
    for name in ("a.py", "b/__init__.py", "b/c.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(f"# {name}", encoding="utf-8")
    monkeypatch.setattr(remembered, "__file__", str(package / "a.py"))
    of_now: Callable[[], str] = remembered._sources.__wrapped__
    versions = {"torch": "1", "torchvision": "2"}
    monkeypatch.setattr(remembered, "version", versions.__getitem__)
    seen = [of_now()]

    def is_new() -> bool:
        seen.append(of_now())
        return seen.count(seen[-1]) == 1

    assert not is_new()
    (package / "notes.txt").write_text("no source", encoding="utf-8")
    assert not is_new()
    (package / "b/c.py").write_text("# b/c.py ", encoding="utf-8")
    assert is_new()
    (package / "b/c.py").rename(package / "b/d.py")
    assert is_new()
    (package / "a.py").write_text("", encoding="utf-8")
    assert is_new()
    versions["torchvision"] = "3"
    assert is_new()


def test_code_that_is_changed_meanwhile_is_not_remembered(tmp_path: Path) -> None:
    code = "remembered._sources = lambda: 'what it was before'\n"
    code += COUNTED.format(place=str(tmp_path / "count"), also="")
    for time in (1, 2):
        assert _asked(code, tmp_path / "cache") == [f"[{time}, {{'more': 2}}]", "beside"]


def test_where_torch_is_there_it_is_simply_called(tmp_path: Path) -> None:
    from tests.elth import remembered_calls as calls

    place = str(tmp_path / "count")
    assert [remembered.remembered(calls.count, place, 1)[0] for _ in range(2)] == [1, 2]
