"""The configs that come with the package, by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from elth.errors import ElthError
from orchestrator.experiment import shipped
from orchestrator.experiment.reading import load

CONFIGS = Path(__file__).parents[3] / "tune_configs"


def test_they_are_the_files_of_tune_configs() -> None:
    assert dict(shipped.shipped()) == {path.stem: path for path in sorted(CONFIGS.glob("*.yaml"))}
    assert shipped.trainings().keys() == shipped.shipped().keys(), "make reference writes it"


def test_a_name_stands_for_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("quickstart") == load(CONFIGS / "quickstart.yaml")
    assert load(Path("quickstart"), ["seeds=[7]"]).seeds == (7,)
    assert load("fig6_cifar_resnets", ["scale=smoke"]).name == "fig6_cifar_resnets-smoke"


def test_a_file_of_that_name_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (CONFIGS / "mnist_mlp.yaml").read_text(encoding="utf-8")
    Path("quickstart").write_text(text, encoding="utf-8")
    assert load("quickstart").name == "mnist_mlp"
    assert not shipped.is_shipped("quickstart")
    Path("quickstart").unlink()
    Path("quickstart").mkdir()  # a folder is no config
    assert load("quickstart").name == "quickstart"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("quickstrt", "cannot read quickstrt: No such file or directory; did you mean 'quicksta"),
        ("quickstart.yaml", "the one that comes with elth is called quickstart, without"),
        ("tune_configs/quickstart.yaml", "comes with elth is called quickstart, without"),
        ("none.yaml", "cannot read none.yaml: No such file or directory"),
        ("./quickstart", "cannot read quickstart: No such file"),
    ],
)
def test_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ElthError, match="cannot read") as refused:
        load(config)
    assert message in str(refused.value)


def test_a_package_without_configs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shipped, "_FOLDERS", (tmp_path / "none",))
    with pytest.raises(ElthError, match="this copy of elth has no configs"):
        shipped.folder()


def test_what_a_config_says_of_itself() -> None:
    about = shipped.about(CONFIGS / "fig6_cifar_resnets.yaml")
    assert about["paper"] == "E-LTH, Figure 6"
    assert about["scales"] == "smoke short"
    assert all(shipped.about(path)["description"] for path in shipped.shipped().values())
