"""Datasets from outside: functions of users, known by what is declared of them."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

import elth
from elth import data, plugins
from elth.data import MemoryDataset
from elth.data._reading import read
from elth.errors import ElthError
from elth.networks import DataShape
from elth.specs import Spec

PLUGINS = Path(__file__).parents[2] / "plugins"
CELLS = "2ec10b4ddc568fe853b45a1d5d9045d69e6ee25fece5dc2f887129ad7168eb68"
SPEC = Spec("x:f")


@pytest.fixture(autouse=True)
def listed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """cells.py is a listed module; what a test lists besides is forgotten after it."""
    monkeypatch.setattr(plugins, "_in_use", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    plugins.use([PLUGINS / "cells.py"])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("data_"):
            del sys.modules[name]
    plugins.sources.cache_clear()


def _module(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / f"{name}.py").write_text(f"import elth\nimport numpy as np\n{text}")
    plugins.use([tmp_path / f"{name}.py"])


def _arrays(count: int = 4, *sides: int) -> tuple[np.ndarray, np.ndarray]:
    images = np.arange(count * int(np.prod(sides or (2, 2))))
    return images.reshape(count, *(sides or (2, 2))).astype(np.uint8), np.arange(count) % 2


def test_what_is_declared_is_known_before_anything_is_read() -> None:
    info = data.info("cells:cells")
    assert info.shape == DataShape(channels=1, size=8, classes=3)
    assert (info.train_size, info.test_size, info.title) == (96, 32, "cells:cells")
    assert info.identity() == {
        "name": "cells:cells",
        "fingerprint": CELLS,
        "mean": [78.075],
        "deviation": [71.9316],
    }
    json.dumps(info.identity())
    assert data.module("tiny_cells") == data.module("cells:cells") == "cells"
    assert data.module("digits") == ""
    assert data.names() == (*data.DATASETS, "tiny_cells", "bare_cells")


def test_options_are_those_of_its_function_and_of_every_dataset_in_memory() -> None:
    assert data.canonical("cells:cells( size=8, stain=none )") == "cells:cells"
    assert data.canonical("tiny_cells(size=16,stain=blue)") == "tiny_cells(size=16, stain=blue)"
    blue = data.info("cells:cells(stain=blue, size=16)")
    assert blue.shape == DataShape(channels=3, size=16, classes=3)
    assert blue.identity() == {
        "name": "cells:cells",
        "fingerprint": "cc41e76b3b836e12832e759c039d28d49f58c6a12f70b062b41efc236d7943a1",
        "mean": [0.0, 0.0, 78.075],
        "deviation": [1.0, 1.0, 71.9316],
        "size": 16,
        "stain": "blue",
    }
    assert data.info("cells:cells(channels=3)").mean == (78.075,) * 3
    shown = {"channels": 1, "size": 8, "centre_crop": False}
    assert data.options("cells:cells") == {**shown, "stain": "none"}
    assert data.options("cells:bare") == {"size": 8}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tiny_cell", "unknown dataset 'tiny_cell'; did you mean 'tiny_cells'"),
        ("digit", r"unknown dataset 'digit'; did you mean 'digits'\? \(there is: digits, digits"),
        ("cells:cels", "unknown name in module cells 'cels'; did you mean 'cells'"),
        ("cell:cells", "no module 'cell' is found: install it, set PYTHONPATH, or list its file"),
        ("cells:cells(stein=blue)", "unknown option of dataset cells:cells 'stein'; did you mean"),
        ("cells:cells(stain=red)", "unknown stain of dataset cells:cells 'red'"),
        ("cells:cells(size=x)", "option size of dataset cells:cells is 'x'; expected a value like"),
        ("cells:cells(size=0)", "option size of dataset cells:cells must be at least 1, is 0"),
        (
            "cells:cells(stain=blue, channels=1)",
            "option channels of dataset cells:cells is 1: only grey images can be repeated",
        ),
        ("cells:DATASETS", "cells:DATASETS is no function of a dataset: expected def f"),
        (
            "cells:bare",
            "what cells:bare reads is not declared: give elth data describe cells:bare --plugin "
            f"{PLUGINS / 'cells.py'} and put what that prints above its function",
        ),
        (
            "bare_cells(size=4)",
            r"what bare_cells\(size=4\) reads is not declared: give elth data describe "
            r"'bare_cells\(size=4\)' --plugin",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(name: str, message: str) -> None:
    with pytest.raises(ElthError, match=message):
        data.info(name)


@pytest.mark.parametrize("name", ["cells:cells", "cells:slides", "tiny_cells"])
def test_it_is_read_into_memory_however_it_is_given(name: str, tmp_path: Path) -> None:
    loaded = elth.load_dataset(name, tmp_path)
    assert isinstance(loaded, MemoryDataset)
    assert loaded.train_images.shape == (96, 1, 8, 8)
    assert loaded.train_images.dtype == torch.uint8
    assert loaded.info.fingerprint == CELLS
    images, labels = next(loaded.train_batches(batch_size=96, augment="crop_flip", seed=0, epoch=0))
    assert images.shape == (96, 1, 8, 8)
    assert set(labels.tolist()) == {0, 1, 2}
    plain, _ = loaded.sample(torch.arange(96))
    assert abs(float(plain.mean())) < 1e-4
    assert abs(float(plain.std(correction=0)) - 1) < 1e-4


def test_channels_last_with_an_option(tmp_path: Path) -> None:
    loaded = data.load("cells:cells(stain=blue, size=16)", tmp_path)
    assert isinstance(loaded, MemoryDataset)
    assert loaded.train_images.shape == (96, 3, 8, 8)
    assert not loaded.train_images[:, :2].any()
    images, _ = next(loaded.test_batches(32))
    assert images.shape == (32, 3, 16, 16)


def test_describe_gives_the_decorator_that_it_asks_for(tmp_path: Path) -> None:
    for name, options in (("cells:bare", {}), ("bare_cells(size=4)", {"size": 4})):
        text = str(data.describe(name, tmp_path))
        call = ast.parse(f"{text}\ndef f(): ...").body[0]
        assert isinstance(call, ast.FunctionDef)
        decorator = call.decorator_list[0]
        assert isinstance(decorator, ast.Call)
        words = {one.arg: ast.literal_eval(one.value) for one in decorator.keywords}
        assert words.pop("options", {}) == options
        assert (words["size"], words["classes"]) == (options.get("size", 8), 3)
        if not options:
            assert (words["fingerprint"], words["mean"]) == (CELLS, [78.075])
    declared = data.describe("cells:cells(stain=blue)", tmp_path)
    assert declared.options == (("stain", "blue"),)
    assert declared.deviation == (1.0, 1.0, 71.9316)  # what is black everywhere is divided by 1


def test_what_describe_prints_is_taken(tmp_path: Path) -> None:
    text = "def f(root, *, k: int = 0):\n    x = np.full((3, 2, 2), k + 1, np.uint8)\n"
    text += "    x[0] = 9\n    return (x, np.arange(3)), (x, [[0], [1], [1]])\n"
    _module(tmp_path, "data_1", text)
    parts = [str(data.describe(name, tmp_path)) for name in ("data_1:f", "data_1:f(k=4)")]
    _module(tmp_path, "data_2", "\n".join([*parts, text]))
    for name, channel in (("data_2:f", 9), ("data_2:f(k=4)", 9)):
        loaded = data.load(name, tmp_path)
        assert isinstance(loaded, MemoryDataset)
        assert int(loaded.train_images[0].max()) == channel
        assert loaded.test_labels.tolist() == [0, 1, 1]
    with pytest.raises(ElthError, match=r"what data_2:f\(k=1\) reads is not declared: give elth"):
        data.info("data_2:f(k=1)")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits", "the dataset digits is described already: name a function, as my_lab.data"),
        ("cells:cells(size=4)", "unknown option of the function cells:cells 'size'"),
        ("bare", "unknown dataset 'bare'; did you mean 'bare_cells'"),
    ],
)
def test_what_cannot_be_described(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ElthError, match=message):
        data.describe(name, tmp_path)


FIELDS: dict[str, Any] = {
    "channels": 1,
    "size": 2,
    "classes": 2,
    "train_size": 4,
    "test_size": 4,
    "fingerprint": "a" * 64,
    "mean": 0.0,
    "deviation": 1,
}
"""Of ``_arrays``, but for the fingerprint."""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 3}, "declares images of 1x3x3, and has images of 1x2x2; if they are meant, give"),
        ({"train_size": 5}, "declares 5 training images, and has 4 images and 4 labels"),
        ({"test_size": 3}, "declares 3 test images, and has 4 images and 4 labels"),
        ({"classes": 1}, "has 1 classes, and training labels from 0 to 1: they are numbers from"),
        (
            {},
            "the dataset data_3:f is not the declared one: its fingerprint is [0-9a-f]{12}, "
            r"expected aaaaaaaaaaaa; if this one is meant, give elth data describe data_3:f "
            "--plugin .*data_3.py --root .*, and if it draws anything, seed that",
        ),
    ],
)
def test_another_than_the_declared_one_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    words = ", ".join(f"{key}={value!r}" for key, value in (FIELDS | changes).items())
    _module(
        tmp_path,
        "data_3",
        f"@elth.dataset({words})\ndef f(root):\n"
        "    x = np.arange(16, dtype=np.uint8).reshape(4, 2, 2)\n"
        "    return (x, np.arange(4) % 2), (x, np.arange(4) % 2)\n",
    )
    with pytest.raises(ElthError, match=message):
        data.load("data_3:f", tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 0}, "channels must be a whole number of at least 1, found 0"),
        ({"train_size": 0}, "train_size must be a whole number of at least 1, found 0"),
        ({"test_size": 1.5}, "test_size must be a whole number of at least 1, found 1.5"),
        ({"fingerprint": "x"}, "fingerprint must be the 64 hexadecimal digits that elth data"),
        ({"mean": [1, 2]}, r"mean must be a number for each of the 1 channels, found \[1.0, 2.0\]"),
        ({"mean": float("nan")}, "mean must be a number for each of the 1 channels, found"),
        ({"deviation": 0}, r"deviation must be above 0, found \[0.0\]"),
    ],
)
def test_a_declaration_that_cannot_be_so_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ElthError, match=message):
        elth.dataset(**(FIELDS | changes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@D\n@D\ndef f(root): ...", "data_4:f is declared twice: leave one decorator above"),
        (
            "@elth.dataset(**F, options={'k': 1})\ndef f(root): ...",
            "unknown option of dataset data_4:f 'k'",
        ),
        ("@D\ndef f(root, *, k): ...", "option k of the dataset f has no default: every keyword"),
        (
            "def f(root, *, mean=1): ...",
            "the option mean of the dataset data_4:f must have another",
        ),
        ("def f(root, *, k=None): ...", "option k of the dataset f is None when nothing is"),
    ],
)
def test_a_function_that_tells_nonsense_is_refused(text: str, message: str, tmp_path: Path) -> None:
    _module(tmp_path, "data_4", f"F = {FIELDS!r}\nD = elth.dataset(**F)\n{text}\n")
    with pytest.raises(ElthError, match=message):
        data.info("data_4:f")


def _read(train: Any, test: Any = None) -> Any:
    return read(lambda root: (train, _arrays() if test is None else test), SPEC, Path("there"))


def test_what_shapes_are_understood() -> None:
    grey, labels = _arrays()
    expected = torch.from_numpy(grey)[:, None]
    for given in (grey, torch.from_numpy(grey), grey[:, None], grey[..., None]):
        images, found, _, _ = _read((given, labels))
        assert torch.equal(images, expected)
        assert images.is_contiguous()
        assert (found.dtype, found.tolist()) == (torch.int64, [0, 1, 0, 1])
    last, labels = _arrays(4, 5, 5, 2)
    images, _, _, _ = _read((last, labels.astype(bool)), (last, labels[:, None].tolist()))
    assert torch.equal(images, torch.from_numpy(last).permute(0, 3, 1, 2))
    items = [(Image.fromarray(one), label) for one, label in zip(grey, labels, strict=True)]
    assert torch.equal(_read(items)[0], expected)
    tensors = TensorDataset(torch.from_numpy(grey)[:, None], torch.from_numpy(labels))
    assert torch.equal(_read(tensors)[0], expected)
    assert _read(tensors)[1].tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (None, "the training part of x:f is nothing; expected .images, labels., or a dataset"),
        (_arrays()[0], "the training part of x:f is a ndarray; expected .images, labels., or"),
        ([], "the training part of x:f has no image"),
        (
            (_arrays()[0] / 255, _arrays()[1]),
            "the training part of x:f has images of float64; expected uint8, from 0 to 255, which "
            "are normalised when they are shown: leave out ToTensor and Normalize",
        ),
        (
            [(torch.zeros(1, 2, 2), 0)],
            "image 0 of the training part of x:f has images of float32; expected uint8",
        ),
        (_arrays(4, 2, 3), r"has images of shape \(2, 3\); expected square ones, \(C, H, H\)"),
        (_arrays(4, 2, 3, 4), r"has images of shape \(2, 3, 4\); expected square ones"),
        ((_arrays()[0], [0, 1]), "the training part of x:f has 4 images and 2 labels"),
        ((_arrays()[0], [0.0] * 4), "the training part of x:f has labels of float64; expected who"),
        ((_arrays()[0], np.eye(4, dtype=int)), r"has labels of shape \(4, 4\); expected \(N,\)"),
        (_arrays(4, 3, 3), "training images of 1x3x3 and test images of 1x2x2: give all one size"),
        (
            [(np.zeros((n, n), np.uint8), 0) for n in (2, 3)],
            "image 1 of the training part of x:f has 1x3x3, and image 0 has 1x2x2: give all one",
        ),
        ([(np.zeros(4, np.uint8), 0)], r"image 0 of .* has shape \(4,\); expected \(C, H, H\)"),
        ([(np.zeros((2, 2), np.uint8), [0, 1])], r"has the label \[0, 1\]; expected one whole"),
        ([3], "reading image 0 of the training part of x:f fails: TypeError: cannot unpack"),
        (
            [(Image.new("P", (2, 2)), 0)],
            r"image 0 of .* has PIL's mode P; expected one of L, RGB: convert it, as by image.con",
        ),
    ],
)
def test_what_is_no_dataset_is_refused(train: Any, message: str) -> None:
    with pytest.raises(ElthError, match=message):
        _read(train)


def test_a_function_that_fails_is_told_of() -> None:
    def absent(root: Path) -> Any:
        return (root / "images.npy").read_bytes()

    with pytest.raises(
        ElthError, match="reading x:f from there fails: FileNotFoundError: .*; data.root=DIR names"
    ):
        read(absent, SPEC, Path("there"))
    with pytest.raises(ElthError, match="x:f gave a int; expected two parts: return train, test"):
        read(lambda root: 3, SPEC, Path("there"))


class _Noisy:
    """One image is another at each look."""

    def __init__(self, number: int) -> None:
        self.number, self.looks = number, 0

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        self.looks += index == self.number
        return np.full((2, 2), self.looks if index == self.number else 7, np.uint8), 0


class _Augmented(_Noisy):
    """Every image is flipped or not, as it comes."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        image = np.arange(4, dtype=np.uint8).reshape(2, 2)
        return image[:, :: 1 if torch.rand(()) < 0.5 else -1], 0


@pytest.mark.parametrize("given", [_Noisy(0), _Noisy(999), _Augmented(0)])
def test_what_is_another_when_it_is_read_again_is_refused(given: Any) -> None:
    before = torch.get_rng_state()
    with pytest.raises(
        ElthError, match=r"image \d+ of the training part of x:f is another one when it is read"
    ):
        _read(given)
    assert torch.equal(torch.get_rng_state(), before)


def test_labels_below_0_are_not_described(tmp_path: Path) -> None:
    _module(
        tmp_path,
        "data_5",
        "def f(root):\n    x = np.zeros((2, 2, 2), np.uint8)\n"
        "    return (x, [0, 1]), (x, [-1, 0])\n",
    )
    with pytest.raises(ElthError, match="data_5:f has the label -1: labels are numbers from 0"):
        data.describe("data_5:f", tmp_path)


def test_a_plan_asks_for_it_without_torch(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r})\n"
        "from elth import plugins, data\n"
        f"plugins.use([{str(PLUGINS / 'cells.py')!r}])\n"
        "print(data.info('tiny_cells(size=16)').shape, data.info('cells:slides').fingerprint[:4])\n"
        "print(data.names()[-1], data.module('bare_cells'))\n"
        "assert not {'torch', 'numpy', 'cells'} & set(sys.modules)\n"
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
        assert done.stdout == "1x16x16, 3 classes 2ec1\nbare_cells cells\n"
