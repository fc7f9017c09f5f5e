"""``elth resume``: from a tracked run to the experiment that it was done for, and on."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml
from mlflow.exceptions import MlflowException

from elth.errors import ElthError
from orchestrator import plan as plans
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.ending import is_round, link_of
from orchestrator.plan.graph import Plan
from orchestrator.plan.stage import Stage
from orchestrator.store.content import Content
from orchestrator.store.listing import stage_of
from orchestrator.store.redo import waiting
from orchestrator.store.standing import standing_of
from orchestrator.store.tracker import Tracker


def begin(tracker: Tracker, run_id: str, overrides: Sequence[str]) -> tuple[Experiment, Plan, str]:
    """Read the experiment of a run; returns it, its plan, and a line that tells what is left.

    Args:
        tracker: of the store.
        run_id: a run, or the key of its stage, or the beginning of one.
        overrides: what is changed in the experiment, as for ``elth run``.

    Raises:
        ElthError: there is no such run, it holds no experiment, or it is no part of that.
    """
    run = tracker.get(run_id)
    stage = stage_of(run)
    name = run.info.run_id[:8]
    with tempfile.TemporaryDirectory(prefix="elth-") as folder:
        try:
            path = Path(folder) / "experiment.yaml"
            path.write_bytes(tracker.files.read(run.info.run_id, "experiment.yaml"))
        except (MlflowException, OSError) as error:
            raise ElthError(
                f"run {name} ({stage.title}) is {run.info.status.lower()} and holds no experiment: "
                "name a finished round of its chain, or give elth run with the file"
            ) from error
        _as_utf8(path)
        if not any(text.startswith("plugins=") for text in overrides):
            _check_plugins(path, tracker)
        experiment, built = plans.of_file(_latest(path, tracker, overrides), overrides)
    if stage.key not in built.stages:
        raise ElthError(
            f"run {name} ({stage.title}) is no part of the experiment {experiment.name} with these "
            "changes, so there is nothing to go on from: leave its network, dataset, recipe, rate "
            "and seed as they are"
        )
    tracked = tracker.stages()
    again = waiting(tracker, tracked)
    now = standing_of(tracker, built, tracked, again, experiment.pruning.stop)
    left = {one.key for one in now.todo}
    chain = _chain_of(built, stage)
    todo = [one for one in chain if one.key in left]
    ended = f"; ended are {len(now.over)}, as {next(iter(now.over.values()))}" if now.over else ""
    return (
        experiment,
        built,
        f"{experiment.name}: on from {stage.title} (run {name}); of the {len(chain)} rounds of its "
        f"chain {len(todo)} are left, of all {len(built.stages)} stages {len(left)}{ended}",
    )


def _latest(path: Path, tracker: Tracker, overrides: Sequence[str]) -> Path:
    """The experiment of a run, or that of its grid where the grid has grown from it since.

    The grid may have got more rounds or seeds, which an older experiment would seem to take back.
    """
    given = [text for text in overrides if text.startswith("plugins=")]
    with contextlib.suppress(ElthError):  # it is told of where the overrides are there, too
        experiment, built = plans.of_file(path, given)
        held = tracker.grids.content(experiment.name)
        if Content.of(experiment, built).places < held.places:
            newer = path.with_name("grid.yaml")
            newer.write_text(held.text, encoding="utf-8")
            if not given:
                _check_plugins(newer, tracker)
            return newer
    return path


def _as_utf8(path: Path) -> None:
    """Write a file anew that an earlier version wrote in a locale's encoding, Latin-1 as a rule."""
    content = path.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError:
        path.write_text(content.decode("latin-1"), encoding="utf-8")


def _check_plugins(path: Path, tracker: Tracker) -> None:
    """Refuse code that lies in the store: what is kept there is read, and never run."""
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError):  # it is refused where it is read
        return
    folder = tracker.store.folder
    for given in (plain.get("plugins") or []) if isinstance(plain, dict) else []:
        place = Path(str(given))
        if not place.is_absolute() or (folder and place.resolve().is_relative_to(folder.resolve())):
            raise ElthError(
                f"the plugin {given} of this run lies in its store, from which no code is run: put "
                "it elsewhere, and give its place as plugins=[/FOLDER/FILE.py]"
            )


def _chain_of(built: Plan, stage: Stage) -> list[Stage]:
    """The rounds that a stage is made from, or is one of, and those that go on from the last.

    Of several variants, whose chains have their first rounds in common, only those are meant.
    """
    before, left = {stage.key}, [stage.key]
    while left:
        more = [key for key in built.stages[left.pop()].parents if key not in before]
        before.update(more)
        left += more
    found = {key for key in before if is_round(built.stages[key])}
    tips = found - {link_of(built.stages[key]).after for key in found}
    for key, one in built.stages.items():  # parents come before their children
        if is_round(one) and (
            link_of(one).after in tips or (not found and before & {*one.parents})
        ):
            tips.add(key)
    return [one for key, one in built.stages.items() if key in found | tips]
