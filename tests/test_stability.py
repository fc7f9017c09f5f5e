"""``benchmarks.stability``: it goes on where it was stopped, and finds what ``elth.imp`` finds."""

import dataclasses
import json
from pathlib import Path

import pytest

import elth
from benchmarks import stability

NETWORK = "lenet_300_100"
ARGUMENTS = (
    *("--dataset", "digits", "--network", NETWORK, "--recipe", "maene_lenet"),
    *("--batch-size", "256", "--stretch", "0.04", "--rate", "0.5", "--rounds", "2"),
    *("--points", "3", "--images", "100", "--no-compile"),
)


def _run(folder: Path, *more: str) -> list[dict[str, object]]:
    stability.main(["--data", str(folder), "--out", str(folder), *ARGUMENTS, *more])
    found: list[dict[str, object]] = json.loads((folder / "stability.json").read_text("utf-8"))[
        "rounds"
    ]
    return found


def test_it_goes_on_after_the_last_training(tmp_path: Path) -> None:
    whole = _run(tmp_path)
    assert [(row["method"], row["round"]) for row in whole] == [
        (method, number) for method in ("imp", "reinit") for number in range(3)
    ]
    assert [row["barrier"] is None for row in whole] == [False, False, True] * 2
    for name in ("imp_02.pt", "reinit_01.pt", "reinit_02.pt"):
        (tmp_path / name).unlink()
    before = (tmp_path / "imp_01.pt").stat().st_mtime_ns
    assert _run(tmp_path) == whole
    assert (tmp_path / "imp_01.pt").stat().st_mtime_ns == before

    data = elth.load_dataset("digits")
    recipe = elth.RECIPES["maene_lenet"].stretched(0.04)
    recipe = dataclasses.replace(recipe, batch_size=256)
    rounds = elth.imp(NETWORK, data, recipe, rate=0.5, rounds=2, noise="round")
    assert [r.accuracy for r in rounds] == [row["accuracy"] for row in whole[:3]]


def test_minutes_that_are_over_and_other_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(tmp_path), "--out", str(tmp_path), *ARGUMENTS, "--minutes", "0"]
    stability.main(arguments)
    assert "the same command goes on" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["arguments.json"]
    with pytest.raises(SystemExit, match="other arguments"):
        stability.main([*arguments, "--seed", "1"])
