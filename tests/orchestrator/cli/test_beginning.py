"""``elth init``, ``configs``, ``schema`` and ``completion``, and configs by their names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from jsonschema import Draft7Validator

from elth.errors import ElthError
from orchestrator.cli import beginning
from orchestrator.cli.main import cli
from orchestrator.experiment import schema
from orchestrator.experiment.reading import load
from orchestrator.experiment.shipped import shipped, trainings
from tests.orchestrator.helpers import Finished


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _elth(*words: str, code: int = 0) -> Result:
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == code, done.output
    return done


def _refused(*words: str) -> str:
    done = CliRunner().invoke(cli, words)
    assert isinstance(done.exception, ElthError), done.output
    return str(done.exception)


# init


def test_what_is_begun_can_be_planned_and_is_valid() -> None:
    """In a process of its own, as a person does it: code from outside is imported there."""
    begun = _elth("init", "my project")
    assert (
        begun.stdout
        == "elth plan 'my project/my-project.yaml'\nelth run 'my project/my-project.yaml'\n"
    )
    assert {path.name for path in Path("my project").iterdir()} == {
        "my-project.yaml",
        "my_data.py",
        "my_nets.py",
        beginning.SCHEMA,
    }
    words = [sys.executable, "-m", "orchestrator.cli", "plan", "my project/my-project.yaml"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "my-project: my_data:shapes, seeds 0, 1, 2" in done.stdout
    assert "my_nets:small, version sha256:" in done.stdout
    text = Path("my project/my-project.yaml").read_text(encoding="utf-8")
    assert text.startswith(f"# yaml-language-server: $schema={beginning.SCHEMA}\n")
    assert "{" + "file}" not in text
    known = json.loads(Path("my project", beginning.SCHEMA).read_text(encoding="utf-8"))
    Draft7Validator(known).validate(yaml.safe_load(text))


def test_the_dataset_that_is_begun_with_is_as_it_is_declared() -> None:
    _elth("init", "mine")
    words = ["data", "describe", "my_data:shapes", "--plugin", "mine/my_data.py"]
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    code = Path("mine/my_data.py").read_text(encoding="utf-8")
    declared = code[code.index("@elth.dataset(") : code.index("def shapes")]
    assert declared.replace("1000", "1_000") == done.stdout


def test_nothing_is_overwritten() -> None:
    _elth("init", "mine")
    config = Path("mine/mine.yaml")
    config.write_text("changed", encoding="utf-8")
    Path("mine/my_nets.py").unlink()
    assert "mine/mine.yaml is there already, and nothing was written" in _refused("init", "mine")
    assert config.read_text(encoding="utf-8") == "changed"
    assert not Path("mine/my_nets.py").exists()
    config.unlink()
    assert "mine/my_data.py is there already" in _refused("init", "mine")
    assert not config.exists()


@pytest.mark.parametrize(
    ("folder", "name"),
    [("a b", "a-b"), ("-x_y", "x_y"), ("é", "experiment"), (".", None), ("123", "experiment-123")],
)
def test_a_config_has_the_name_of_its_folder(tmp_path: Path, folder: str, name: str | None) -> None:
    _elth("init", "--", folder)
    name = name or tmp_path.name
    assert f"\nname: {name}\n" in Path(folder, f"{name}.yaml").read_text(encoding="utf-8")


def test_a_config_that_comes_with_elth_is_copied() -> None:
    _elth("init", "--from", "fig6_cifar_resnets")
    copied = Path("fig6_cifar_resnets.yaml")
    assert load(copied) == load("fig6_cifar_resnets")
    head, _, rest = copied.read_text(encoding="utf-8").partition("\n")
    assert head == f"# yaml-language-server: $schema={beginning.SCHEMA}"
    assert rest == shipped()["fig6_cifar_resnets"].read_text(encoding="utf-8")
    _elth("init", "--from", "quickstart")  # beside it, with the schema that lies there
    assert "is there already" in _refused("init", "--from", "quickstart")
    _elth("init", "deep/er", "--from", "quickstart")
    assert Path("deep/er/quickstart.yaml").is_file()


def test_what_cannot_be_begun() -> None:
    assert "name a folder, as elth init mine" in _elth("init", code=2).output
    told = _refused("init", "--from", "fig6")
    assert told.startswith("unknown config 'fig6'; did you mean 'fig6_cifar_resnets'? (there is: ")
    Path("file").touch()
    assert "cannot write to file" in _refused("init", "file")


# configs and schema


def test_the_configs_are_listed() -> None:
    done = _elth("configs").output
    assert all(name in done for name in shipped())
    assert "1,965" in done
    listed: list[dict[str, Any]] = json.loads(_elth("configs", "--json").output)
    assert {one["name"]: one["trainings"] for one in listed} == trainings()
    (figure,) = (one for one in listed if one["name"] == "fig6_cifar_resnets")
    assert figure["paper"] == "E-LTH, Figure 6"
    assert "smoke" in figure["scales"].split()


def test_a_config_is_printed() -> None:
    text = shipped()["quickstart"].read_text(encoding="utf-8")
    assert _elth("configs", "quickstart").output == text
    assert "unknown config 'quickstrt'; did you mean 'quickstart'?" in _refused(
        "configs", "quickstrt"
    )


def test_the_schema_is_printed() -> None:
    assert json.loads(_elth("schema").output) == json.loads(json.dumps(schema.schema()))


# Configs by their names, where grids have names, too


def test_a_config_is_planned_by_its_name() -> None:
    done = _elth("plan", "fig6_cifar_resnets", "scale=smoke").output
    assert "fig6_cifar_resnets-smoke: digits, seed 0" in done
    assert not Path("runs").exists()


def test_a_bare_word_is_the_grid_of_that_name(
    finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has a grid ``done``, and a config of that name is said to come with elth."""
    text = yaml.safe_load(finished.experiment.resolved())
    Path("done.yaml").write_text(yaml.safe_dump({**text, "seeds": [0]}), encoding="utf-8")
    known = {**shipped(), "done": Path("done.yaml").absolute()}
    monkeypatch.setattr("orchestrator.experiment.shipped.shipped", lambda: known)
    store = ("--store", str(finished.store))
    whole = _elth("report", "done", "--json", *store)
    assert {tuple(cell["seeds"]) for cell in json.loads(whole.stdout)} == {(0, 1)}
    assert whole.stderr == ""
    changed = _elth("report", "done", "description=x", "--json", *store)
    assert {tuple(cell["seeds"]) for cell in json.loads(changed.stdout)} == {(0,)}
    assert (
        "done with description=x is the config of that name that comes with elth" in changed.stderr
    )
    told = _elth("diff", "done", "done", "--a", "pruning.rounds=1", *store).output
    assert "A: the config done of elth pruning.rounds=1\nB: the grid done\n" in told
    both = _refused("diff", "done", "done", "seeds=[0]", *store)
    assert "'seeds=[0]' can change configs only, and done and done are grids" in both
    assert "of 12 stages" in _elth("why", "done", *store).output


def test_two_configs_are_compared_by_name_without_a_store() -> None:
    told = _elth("diff", "quickstart", "mnist_mlp").output
    assert "A: the config quickstart of elth\nB: the config mnist_mlp of elth\n" in told


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_a_shell(shell: str) -> None:
    script = _elth("completion", shell).output
    assert "_ELTH_COMPLETE" in script
    if path := shutil.which(shell):
        done = subprocess.run(
            [path, "-n"], input=script, text=True, capture_output=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")


def _offered(*words: str) -> list[str]:
    """What bash is told, as ``plain,NAME`` or ``file,PREFIX``."""
    code = "from orchestrator.cli.main import cli; cli(prog_name='elth')"
    line = {"COMP_WORDS": " ".join(("elth", *words)), "COMP_CWORD": str(len(words))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "_ELTH_COMPLETE": "bash_complete", **line},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_configs_and_grids_are_completed(finished: Finished) -> None:
    store = str(finished.store)
    assert _offered("plan", "fig6") == ["plain,fig6_cifar_resnets"]
    assert _offered("init", "--from", "quick") == ["plain,quickstart"]
    assert _offered("configs", "quick") == ["plain,quickstart"]
    assert _offered("report", "--store", store, "don") == ["plain,done"]
    assert "plain,done" in _offered("rm", "--store", store, "")
    assert "plain,quickstart" not in _offered("rm", "--store", store, "")
    assert _offered("rm", "--store", "nowhere", "") == [""]


def test_files_are_completed_beside_names() -> None:
    """Bash clears what it has where it is told of files, so beside names they are named."""
    for name in ("mine.yaml", "moth.py", ".m.yaml", "other.yaml"):
        Path(name).touch()
    Path("more").mkdir()
    known = [f"plain,{name}" for name in shipped() if name.startswith("m")]
    assert _offered("plan", "m") == [*known, "plain,mine.yaml", "plain,more/"]
    assert _offered("plan", "mi") == ["file,mi"]
    assert _offered("plan", "more/x") == ["file,more/x"]


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_bash_completes(tmp_path: Path) -> None:
    """The script that is printed, in bash itself."""
    command = tmp_path / "bin" / "elth"
    command.parent.mkdir()
    code = "from orchestrator.cli.main import cli; cli(prog_name='elth')"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    words = (
        'COMP_WORDS=(elth plan fig6); COMP_CWORD=2; _elth_completion elth; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", f'eval "$(elth completion bash)"; {words}'],
        env={**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "fig6_cifar_resnets\n"
