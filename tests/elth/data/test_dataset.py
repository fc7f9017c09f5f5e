"""Names of datasets with their options, and what results depend on."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from elth import data
from elth.data import DATASETS, MemoryDataset, fingerprint
from elth.data.digits import shuffled
from elth.errors import ElthError
from elth.networks import DataShape
from elth.specs import Choice

IMAGENET = {"mean": [123.675, 116.28, 103.53], "deviation": [58.395, 57.120000000000005, 57.375]}
IDENTITIES = {
    "digits": {
        "name": "digits",
        "fingerprint": "ee46149fc808dd563efa642b4bb7ac777bb9c15f6eed0959872054fbe7a7cfe9",
        "mean": [4.894],
        "deviation": [6.009],
    },
    "digits_shuffled": {
        "name": "digits_shuffled",
        "fingerprint": "7a6d3cbf1061e31e4e20d9d58454ca637d26fbdd9d88f831685abc552ee00be6",
        "mean": [4.882],
        "deviation": [6.014],
    },
    "mnist": {
        "name": "mnist",
        "fingerprint": "3ee7f568b8fdc8915ba79f8c2e5cfce6e08e6def379bae044b8ec31ae87c0afb",
        "mean": [33.328500000000005],
        "deviation": [78.5655],
    },
    "cifar10": {
        "name": "cifar10",
        "fingerprint": "cb85cdd084bdd7718e8e746014bbc16f32cbe9ab4e0757d9f59e641b39f8f958",
        **IMAGENET,
    },
    "svhn": {
        "name": "svhn",
        "fingerprint": "66c506022df4460a14ea90419c9f061acf5f6d161172f264956e4956c7f785fb",
        "mean": [111.69, 113.22, 120.615],
        "deviation": [50.49, 51.255, 50.235],
    },
    "imagenet": {"name": "imagenet", "fingerprint": "ILSVRC2012 classification", **IMAGENET},
    "imagenet(size=64)": {
        "name": "imagenet",
        "fingerprint": "ILSVRC2012 classification",
        **IMAGENET,
        "size": 64,
    },
    "cifar10(size=224)": {
        "name": "cifar10",
        "fingerprint": "cb85cdd084bdd7718e8e746014bbc16f32cbe9ab4e0757d9f59e641b39f8f958",
        **IMAGENET,
        "size": 224,
    },
    "cifar10(size=224, statistics=own, centre_crop=true)": {
        "name": "cifar10",
        "fingerprint": "cb85cdd084bdd7718e8e746014bbc16f32cbe9ab4e0757d9f59e641b39f8f958",
        "mean": [125.307, 122.961, 113.8575],
        "deviation": [62.985, 62.0925, 66.708],
        "size": 224,
        "statistics": "own",
        "centre_crop": True,
    },
    "digits(channels=3, size=16)": {
        "name": "digits",
        "fingerprint": "ee46149fc808dd563efa642b4bb7ac777bb9c15f6eed0959872054fbe7a7cfe9",
        "mean": [4.894] * 3,
        "deviation": [6.009] * 3,
        "channels": 3,
        "size": 16,
    },
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_identities_never_change(name: str) -> None:
    """They are part of the keys of finished work, to the last digit."""
    found = data.info(name).identity()
    assert json.dumps(found, sort_keys=True) == json.dumps(IDENTITIES[name], sort_keys=True)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("cifar10", "cifar10"),
        (" cifar10 ( size = 224 ) ", "cifar10(size=224)"),
        ("cifar10(size=32, channels=3)", "cifar10"),
        ("digits(size=16,channels=3)", "digits(channels=3, size=16)"),
        ("digits(size=8,channels=1)", "digits"),
        ("digits_shuffled(channels=1, size=16)", "digits_shuffled(size=16)"),
        ("imagenet(size=224)", "imagenet"),
        ("folder(size=224, manifest=/a (b)/c.json)", "folder(manifest=/a (b)/c.json)"),
    ],
)
def test_one_name_for_one_meaning(text: str, name: str) -> None:
    assert data.canonical(text) == name
    assert data.canonical(name) == name
    if not name.startswith("folder"):
        assert data.info(text) == data.info(name)
        assert data.info(text).name == data.info(text).title == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cifar10(", r"cannot read the dataset 'cifar10\(': write a name, or a name with options"),
        ("cifar10(size=1, size=2)", "the dataset .* gives the option size twice"),
        ("cifar10(224)", "cannot read the option '224' of dataset"),
        ("cifar10(sise=1)", "unknown option of dataset cifar10 'sise'; did you mean 'size'"),
        (
            "cifar10(classes=9)",
            r"unknown option of dataset cifar10 .* \(there is: channels, size, centre_crop, hold",
        ),
        ("imagenet(channels=1)", r"unknown option of dataset imagenet .* \(there is: size\)"),
        ("cifar10(size=0)", "option size of dataset cifar10 must be at least 1, is 0"),
        ("cifar10(size=big)", "option size of dataset cifar10 is 'big'; expected a value like 32"),
        ("cifar10(size=true)", "option size of dataset cifar10 is True; expected a value like 32"),
        (
            "cifar10(channels=1)",
            "option channels of dataset cifar10 is 1: only grey images can be repeated, and these "
            "have 3 channels; leave the option out",
        ),
        ("folder(manifest=3)", "option manifest .* is 3; expected a value like 'images.json'"),
    ],
)
def test_options_that_make_no_sense(text: str, message: str) -> None:
    for ask in (data.info, data.load):
        with pytest.raises(ElthError, match=message):
            ask(text)


def test_options_of_a_dataset() -> None:
    own = {"centre_crop": False, "hold_out": 0}
    assert data.options("mnist") == {"channels": 1, "size": 28, **own}
    assert data.options("cifar10") == {
        **{"channels": 3, "size": 32, "statistics": "imagenet"},
        **own,
    }
    assert data.canonical("cifar10(centre_crop=false, statistics=imagenet)") == "cifar10"
    with pytest.raises(ElthError, match="unknown dataset 'cifar'; did you mean 'cifar10'"):
        data.options("cifar")


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_and_option_says_what_it_is(name: str) -> None:
    about, known = data.about(name), data.choices(name)
    assert about[0] != ";"
    assert {key: one.default for key, one in known.items()} == data.options(name)
    assert [key for key, one in known.items() if not one.about] == []
    if name != "folder":
        by_imagenet = list(data.info(name).mean) == IMAGENET["mean"]
        assert ("normalised by ImageNet's mean" in about) == by_imagenet
    assert known.get("statistics", Choice(default=0)).words in ((), ("imagenet", "own"))


def test_digits_with_options() -> None:
    digits, plain = data.load("digits(size=16, channels=3)"), data.load("digits")
    assert digits.info == data.info("digits(channels=3,size=16)")
    assert digits.info.shape == DataShape(channels=3, size=16, classes=10)
    images, labels = digits.sample(torch.arange(5))
    assert images.shape == (5, 3, 16, 16)
    assert torch.equal(labels, plain.sample(torch.arange(5))[1])
    assert digits.device == torch.device("cpu")


def test_digits() -> None:
    digits = data.load("digits")
    assert isinstance(digits, MemoryDataset)
    assert digits.info is data.info("digits")
    assert digits.train_images.shape == (1297, 1, 8, 8)
    assert digits.test_images.shape == (500, 1, 8, 8)
    assert digits.train_images.dtype is digits.test_images.dtype is torch.uint8
    assert digits.train_labels.dtype is digits.test_labels.dtype is torch.int64
    assert int(digits.train_images.max()) == int(digits.test_images.max()) == 16
    counts = [128, 131, 128, 132, 130, 131, 130, 129, 128, 130]
    assert torch.bincount(digits.train_labels).tolist() == counts
    assert torch.bincount(digits.test_labels).tolist() == [50, 51, 49, 51, 51, 51, 51, 50, 46, 50]
    # The first image is a 0, as in scikit-learn's documentation.
    assert digits.train_images[0, 0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert int(digits.train_labels[0]) == 0
    parts = (digits.train_images, digits.train_labels, digits.test_images, digits.test_labels)
    assert fingerprint(parts) == digits.info.fingerprint
    assert digits.info.fingerprint.startswith("ee46149fc808dd56")
    pixels = digits.train_images.float()
    assert float(pixels.mean()) == pytest.approx(digits.info.mean[0], abs=5e-4)
    assert float(pixels.std()) == pytest.approx(digits.info.deviation[0], abs=1e-3)


def test_shuffled_digits_are_the_same_images_by_a_fixed_draw() -> None:
    digits, drawn = data.load("digits"), data.load("digits_shuffled")
    assert isinstance(digits, MemoryDataset)
    assert isinstance(drawn, MemoryDataset)
    order = shuffled()
    assert hashlib.sha256(" ".join(map(str, order)).encode()).hexdigest() == (
        "ee3ffa655c9948a24f85961ec205f79d7b37e5eeb1b801baa8965130ad43f3ba"
    )
    assert sorted(order) == list(range(1797))
    assert drawn.train_images.shape == (1297, 1, 8, 8)
    assert drawn.test_images.shape == (500, 1, 8, 8)
    for part in ("images", "labels"):
        whole = torch.cat([getattr(digits, f"train_{part}"), getattr(digits, f"test_{part}")])
        both = torch.cat([getattr(drawn, f"train_{part}"), getattr(drawn, f"test_{part}")])
        assert torch.equal(both, whole[order])
    parts = (drawn.train_images, drawn.train_labels, drawn.test_images, drawn.test_labels)
    assert fingerprint(parts) == drawn.info.fingerprint
    pixels = drawn.train_images.float()
    assert float(pixels.mean()) == pytest.approx(drawn.info.mean[0], abs=5e-4)
    assert float(pixels.std()) == pytest.approx(drawn.info.deviation[0], abs=1e-3)


def test_registry_names_are_those_of_the_descriptions() -> None:
    assert list(DATASETS) == [
        *("digits", "digits_shuffled", "mnist", "cifar10", "svhn", "imagenet", "folder")
    ]
    assert all(data.info(name).name == name for name in DATASETS if name != "folder")


def test_an_unknown_dataset() -> None:
    for ask in (data.info, data.load):
        with pytest.raises(
            ElthError, match=r"unknown dataset 'cifar'; did you mean 'cifar10'\? \(there is: dig"
        ):
            ask("cifar")


# The images that analyses look at.


def test_fixed_images_are_drawn_once_and_for_all() -> None:
    assert data.fixed_images(10, 4).tolist() == [0, 3, 7, 9]
    some, more = (set(data.fixed_images(1000, count).tolist()) for count in (200, 500))
    assert (len(some), len(more)) == (200, 500)
    assert some < more < set(range(1000))


@pytest.mark.parametrize("count", [None, 10, 11])
def test_all_images_where_no_fewer_are_asked_for(count: int | None) -> None:
    assert data.fixed_images(10, count).tolist() == list(range(10))


def test_no_images_are_refused() -> None:
    with pytest.raises(ElthError, match="at 1 training image at least, found images 0: give a num"):
        data.fixed_images(10, 0)


def test_images_are_held_out_of_training_and_tested_on() -> None:
    whole, parted = data.load("digits"), data.load("digits(hold_out=300)")
    assert (parted.info.train_size, parted.info.test_size) == (997, 300)
    assert parted.info.identity()["hold_out"] == 300
    assert parted.info.identity()["fingerprint"] == whole.info.identity()["fingerprint"]

    def images(found: data.Dataset, part: str) -> set[bytes]:
        assert isinstance(found, data.MemoryDataset)
        return {image.numpy().tobytes() for image in getattr(found, f"{part}_images")}

    kept, apart = images(parted, "train"), images(parted, "test")
    assert kept | apart == images(whole, "train")
    assert not kept & apart
    assert not apart & images(whole, "test")
    assert len(set(parted.test_labels.tolist())) == 10
    again = data.load("digits(hold_out=300, size=16)")
    assert torch.equal(again.test_labels, parted.test_labels)


@pytest.mark.parametrize("count", [1297, 5000])
def test_as_many_images_as_there_are_cannot_be_held_out(count: int) -> None:
    with pytest.raises(ElthError, match=r"of its 1,297 training images from 1 to 1,296 can be he"):
        data.info(f"digits(hold_out={count})")
    with pytest.raises(ElthError, match="hold_out of dataset digits must be at least 1, is -1"):
        data.info("digits(hold_out=-1)")
    assert data.canonical("digits(hold_out=0)") == "digits"
