"""Commands under a locale whose encoding lacks the letters that people use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from elth.errors import ElthError
from orchestrator.experiment import load
from orchestrator.work.resume import begin
from tests.orchestrator.helpers import Finished, artifact, chain, tiny
from tests.orchestrator.helpers import begin as begin_log

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
CONFIG = """\
description: "90 % → ETT, Müller"
dataset: digits
seeds: [0]
recipe: {base: digits_resnet, length: 5it, rewind: 1it, milestones: []}
pruning: {rate: 0.2, rounds: 1}
grid: [{method: imp, network: resnet14(width=4)}]
"""


def _elth(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.cli", *words],
        cwd=folder,
        env={**os.environ, **(variables or ASCII)},
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a config in UTF-8."""
    (tmp_path / "x.yaml").write_text(CONFIG, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("variables", [ASCII, {"PYTHONIOENCODING": "latin-1"}])
def test_a_plan_is_printed_in_any_encoding(folder: Path, variables: dict[str, str]) -> None:
    done = _elth(folder, "plan", "x.yaml", **variables)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"x: digits, seed 0" in done.stdout
    missing = _elth(folder, "plan", "Zürich→.yaml", **variables)
    assert missing.returncode == 2
    assert b"Traceback" not in missing.stderr
    assert missing.stderr.startswith(b"elth: error: cannot read Z")


def test_letters_that_the_locale_cannot_read_are_refused(folder: Path) -> None:
    done = _elth(folder, "plan", "x.yaml", "description=Müller")
    assert done.returncode == 2
    assert done.stderr.decode() == (
        "elth: error: the override 'description=M\\udcc3\\udcbcller' has letters that are none in "
        "this locale's encoding, ascii: set LC_ALL=C.UTF-8, or PYTHONUTF8=1\n"
    )


def test_a_place_that_the_locale_cannot_name_is_refused(folder: Path) -> None:
    text = CONFIG + "data: {root: /tmp/Zürich}\nplugins: [/tmp/Zürich.py]\n"
    (folder / "x.yaml").write_text(text, encoding="utf-8")
    done = _elth(folder, "plan", "x.yaml")
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_a_file_of_a_run_that_was_written_in_latin_1_is_read(finished: Finished) -> None:
    tracker = finished.tracker
    found = tiny("locale", seeds=[7], description="Müller")
    stage = chain("locale", seeds=[7])[0]
    log = begin_log(tracker, stage, grid="locale", experiment=found.resolved())
    try:
        place = artifact(tracker, log.run_id, "experiment.yaml")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(found.resolved().encode("latin-1"))
        again, _, told = begin(tracker, log.run_id, ())
        assert again == found
        assert "locale: on from" in told
        with pytest.raises(ElthError, match="is no text in UTF-8"):  # of a person's own file
            load(place)
    finally:
        log.stop()
        tracker.client.delete_run(log.run_id)
