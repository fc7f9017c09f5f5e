"""The commands that tell what there is: networks, recipes, methods and data."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torchvision.io import write_jpeg

from elth import plugins
from elth.data import DATASETS
from elth.networks import NETWORKS
from elth.recipes import RECIPES
from orchestrator.cli import data
from orchestrator.experiment.methods import METHODS
from orchestrator.experiment.reading import load
from orchestrator.plan.building import build
from orchestrator.work import progress
from tests.orchestrator.cli.helpers import Elth, refused, table_of


def test_networks_with_the_counts_of_the_papers(elth: Elth) -> None:
    done = elth("networks")
    table = table_of(done.out)
    for name, prunable, parameters in [
        ("resnet14", "174,128", "175,258"),
        ("resnet20", "270,896", "272,474"),
        ("resnet32", "464,432", "466,906"),
        ("resnet44", "657,968", "661,338"),
        ("resnet56", "851,504", "855,770"),
        ("resnet110", "1,722,416", "1,730,714"),
    ]:
        assert table[name][-2:] == [prunable, parameters]
    assert table["resnet20"][:3] == ["cifar-resnet", "3 3 3", "width=16, shortcut=conv"]
    assert "too small" not in done.out
    for name, prunable, parameters in [
        ("vgg13", "9,407,168", "9,416,010"),
        ("vgg19", "20,024,000", "20,040,522"),
        ("conv4", "2,425,024", "2,425,930"),
    ]:
        assert table[name][-2:] == [prunable, parameters]
    table = table_of(elth("networks", "--dataset", "mnist").out)
    assert table["mlp1"][-2:] == ["266,200", "266,610"]
    assert table["mlp4"][-2:] == ["536,200", "537,510"]


def test_networks_for_which_the_images_are_too_small_are_named(elth: Elth) -> None:
    done = elth("networks", "--dataset", "digits")
    small = ["vgg11", "vgg13", "vgg16", "vgg19", "resnet18", "resnet26", "resnet34", "resnet50"]
    line = f"These images are too small for {', '.join([*small, 'mobilenet'])}."
    assert line in done.out.splitlines()
    table = table_of(done.out)
    assert not {*small, "mobilenet"} & set(table)
    assert table["mlp1"][-2:] == ["50,200", "50,610"]
    assert {*small, "mobilenet"} | set(table) - {"name"} == set(NETWORKS)
    larger = elth("networks", "--dataset", "digits(size=16)")
    assert "networks, for digits(size=16) (1x16x16, 10 classes)" in larger.out
    assert {"vgg11", "vgg13", "vgg16", "vgg19"} <= set(table_of(larger.out))


# methods and data


def test_recipes(elth: Elth) -> None:
    done = elth("recipes")
    rows = table_of(done.out)
    assert set(rows) == {"recipe", *RECIPES}
    assert rows["cifar10_resnet"] == [
        *("160ep", "1000it", "128", "sgd 0.9", "0.1", "80ep 120ep", "0.0001", "-", "crop_flip")
    ]
    assert rows["maene_lenet"][3:6] == ["adam", "0.0012", "constant"]


def test_methods(elth: Elth) -> None:
    done = elth("methods")
    assert (done.code, done.err) == (0, "")
    table = table_of(done.out)
    for name, method in METHODS.items():
        assert table[name][0] == method.title
    assert table["imp"][1:] == ["iterative magnitude pruning, rewound", ""]
    assert table["ett_snip_extra"][-1] == "samples=128, mode=eval"
    assert table["snip"][-1] == "samples=128, mode=eval, at=rewind"
    assert table["synflow"][-1] == "iterations=100, at=rewind"


def test_datasets(elth: Elth) -> None:
    table = table_of(elth("data", "list").out)
    assert list(table) == ["name", *DATASETS]
    assert table["cifar10"] == [
        *("3x32x32", "10", "50,000", "10,000"),
        "channels=3, size=32, centre_crop=false, hold_out=0, statistics=imagenet",
    ]
    assert table["svhn"][2:4] == ["73,257", "26,032"]


def test_datasets_of_a_plugin(
    elth: Elth, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "_in_use", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    cells = Path(__file__).parents[2] / "plugins" / "cells.py"
    table = table_of(elth("data", "list", "--plugin", cells).out)
    assert list(table) == ["name", *DATASETS, "tiny_cells", "bare_cells"]
    shown = "channels=1, size=8, centre_crop=false, stain=none"
    assert table["tiny_cells"] == ["1x8x8", "3", "96", "32", shown]
    assert table["bare_cells"] == ["not declared", "", "", "", "size=8"]
    done = elth("data", "describe", "bare_cells", "--plugin", cells)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("@elth.dataset(\n    channels=1,\n    size=8,\n    classes=3,\n")
    assert done.out.endswith("    mean=[78.075],\n    deviation=[71.9316],\n)\n")
    planned = elth("plan", config, f"plugins=[{cells}]", "dataset=tiny_cells")
    assert (planned.code, planned.err) == (0, "")
    refused(
        elth("plan", config, f"plugins=[{cells}]", "dataset=bare_cells"),
        "in dataset: what bare_cells reads is not declared: give elth data describe bare_cells",
    )
    refused(elth("data", "list", "--plugin", tmp_path / "no.py"), "there is no plugin ")


def _flowers(*, parts: dict[str, int]) -> None:
    """flowers/PART/{daisy,rose}: JPEG files, each another image."""
    generator = torch.Generator().manual_seed(0)
    for part, count in parts.items():
        for name in ("daisy", "rose"):
            folder = Path("flowers") / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = torch.randint(0, 256, (3, 40, 60), generator=generator, dtype=torch.uint8)
                write_jpeg(pixels, str(folder / f"{number}.jpg"))


def test_an_image_folder_becomes_a_dataset(elth: Elth, config: Path) -> None:
    _flowers(parts={"train": 2, "val": 1})
    done = elth("data", "manifest", "flowers", "--name", "flowers")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == "flowers: 2 classes, images: 4 train, 2 val"
    dataset = "folder(manifest=flowers.json,size=64)"
    assert done.out.splitlines()[1].endswith(f"in a config: dataset: {dataset}")
    planned = elth("plan", config, f"dataset={dataset}")
    assert (planned.code, planned.err) == (0, "")
    assert table_of(planned.out)["all"] == ["4", "0", "4"]
    assert elth("data", "manifest", "flowers", "--name", "f", "-o", "other.json").code == 0
    assert Path("other.json").exists()
    refused(elth("data", "manifest", "none", "--name", "none"), "none")


def test_every_image_of_a_folder_is_looked_at(elth: Elth, monkeypatch: pytest.MonkeyPatch) -> None:
    _flowers(parts={"train": 4, "val": 1})
    words = ("data", "manifest", "flowers", "--name", "flowers")
    Path("flowers/train/rose/notes.txt").write_text("no image", encoding="utf-8")
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.0)
    note = "note: left out of train: files that are not .jpg .jpeg .png .webp (1 .txt)"
    done = elth(*words, "--threads", "1")
    assert (done.code, done.err) == (0, "")
    told, *counted, _, _ = done.out.splitlines()
    assert told == note
    assert [line.partition(" in ")[0] for line in counted] == ["8 of 10 images", "10 of 10 images"]
    Path("flowers.json").unlink()
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 60.0)
    bad = [*sorted(Path("flowers/train").glob("*/*.jpg"))[:6]]
    for path in bad[:5]:
        path.write_bytes(b"no image")
    done = elth(*words)
    assert (done.code, done.out) == (2, note + "\n")
    assert done.err.startswith("elth: error: 5 of 10 images cannot be read: flowers/train/daisy/0")
    assert all(str(path) in done.err for path in bad[:5])
    assert not Path("flowers.json").exists()
    bad[5].write_bytes(b"")
    listed = [f"{path} (it is no JPEG, PNG, WebP or GIF file: it" for path in bad[:5]]
    for command, advice in (
        (words, "Repair or remove them; nothing was written"),
        (("data", "prepare", "flowers", "small"), "Repair or remove them and give the same"),
    ):
        *lines, last = elth(*command).err.splitlines()
        assert [line.partition(" begins with")[0] for line in lines[:5]] == listed
        assert lines[5:] == [f"{bad[5]} (the file is empty)"]
        assert last.startswith(f"elth: error: 6 of 10 images cannot be read. {advice}")
    monkeypatch.setattr(data, "_LINES", 4)
    *lines, last = elth(*words).err.splitlines()
    assert [line.partition(" begins with")[0] for line in lines] == [*listed[:4], "and 2 more"]
    done = elth(*words, "--no-decode")
    assert (done.code, done.err) == (0, "")
    assert json.loads(Path("flowers.json").read_text(encoding="utf-8"))["decoded"] is False


def test_images_of_both_parts_are_refused_or_allowed(elth: Elth) -> None:
    _flowers(parts={"train": 2, "val": 1})
    shutil.copy("flowers/train/rose/1.jpg", "flowers/val/daisy/x.jpg")
    manifest = ("data", "manifest", "flowers", "--name", "flowers")
    for words in (manifest, ("data", "prepare", "flowers", "small")):
        refused(elth(*words), "flowers/val/daisy/x.jpg is flowers/train/rose/1.jpg. A test on")
        assert elth(*words, "--allow-shared").code == 0


def test_a_folder_is_prepared(elth: Elth, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _flowers(parts={"train": 2, "val": 1})
    words = ("data", "prepare", "flowers", "small", "--short", "20", "--quality", "90")
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 0.0)
    done = elth(*words)
    assert (done.code, done.err) == (0, "")
    *told, sizes, wrote = done.out.splitlines()
    assert [line.partition(" in ")[0] for line in told] == [f"{n} of 6 images" for n in range(1, 7)]
    assert sizes.startswith("small: 2 classes, images: 4 train, 2 val; ")
    dataset = "folder(manifest=small/manifest.json,size=224)"
    assert wrote == f"wrote small/manifest.json; in a config: dataset: {dataset}"
    before = {path: path.read_bytes() for path in Path("small").iterdir()}
    again = elth(*words)
    assert again.out.splitlines()[-2:] == [sizes, wrote]
    assert {path: path.read_bytes() for path in Path("small").iterdir()} == before
    monkeypatch.setattr(progress, "_PLAIN_SECONDS", 60.0)
    planned = elth("plan", config, "dataset=folder(manifest=small/manifest.json,size=32)")
    assert (planned.code, planned.err) == (0, "")
    refused(elth(*words[:4]), "small was begun with other settings: name small, short 20, quality")
    Path("flowers/val/rose/0.jpg").write_bytes(b"no image")
    refused(elth("data", "prepare", "flowers", "other"), "1 of 6 images cannot be read: flowers/")
    assert not Path("other/manifest.json").exists()


def test_plans_of_a_folder_and_of_its_store_share_no_stage(elth: Elth, config: Path) -> None:
    _flowers(parts={"train": 1, "val": 1})
    assert elth("data", "manifest", "flowers", "--name", "flowers").code == 0
    assert elth("data", "prepare", "flowers", "small", "--name", "flowers").code == 0
    keys = [
        set(build(load(config, [f"dataset=folder(manifest={manifest},size=32)"])).stages)
        for manifest in ("flowers.json", "small/manifest.json")
    ]
    assert len(keys[0]) == len(keys[1]) > 0
    assert not keys[0] & keys[1]
