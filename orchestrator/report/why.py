"""Why a stage is not found finished: what its key holds that no finished one does.

Beside it stands the *nearest* finished stage: of the same kind and network and, as far as there is
one, with the same labels; of several the one with the fewest differing fields.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from mlflow.entities import Run, ViewType
from pydantic import ValidationError

from elth import plugins
from elth.errors import ElthError
from orchestrator import plan as plans
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.comparing import Difference, compare, shown
from orchestrator.plan.costs import duration
from orchestrator.plan.imported import how_to_import, lacking
from orchestrator.plan.naming import find
from orchestrator.plan.stage import VARIANT, Stage
from orchestrator.report.status import log_of
from orchestrator.store.listing import Tracked, pages
from orchestrator.store.marks import STALE
from orchestrator.store.opening import STAGES
from orchestrator.store.processes import in_words
from orchestrator.store.redo import NAMED, OUTDATED, marked
from orchestrator.store.tracker import Tracker

_COMPARED = 50
"""Finished stages with the same labels of which the nearest is looked for, the latest ones."""

_ORDER = ("finished", "running", "failed", "set aside", "killed")
"""Of several runs of a stage, whose state is told."""


@dataclass(frozen=True, kw_only=True)
class Why:
    """What is known of one stage, and why it is not finished, if it is not."""

    stage: Stage
    state: str
    """``finished``, ``to do again`` (it is finished nevertheless), ``running``, ``failed``,
    ``set aside``, ``interrupted``, ``to do``."""
    reason: str
    """One sentence, the same for stages that are in the same case."""
    run_id: str = ""
    """The run that the state is of."""
    nearest: Tracked | None = None
    """Of one that is to do, the nearest that is finished."""
    axes: tuple[str, ...] = ()
    """Labels in which the nearest is another."""
    differences: tuple[Difference, ...] = ()
    """Fields in which the nearest (a) and the stage (b) differ."""

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "key": self.stage.key,
            "title": self.stage.title,
            "state": self.state,
            "reason": self.reason,
            "run": self.run_id,
            "nearest": None if self.nearest is None else self.nearest.run_id,
            "labels": list(self.axes),
            "differences": [
                {"path": one.path, "store": one.a, "here": one.b, "where": one.where}
                for one in self.differences
            ],
        }


class Reading:
    """A store as it is now, for questions about its stages."""

    def __init__(self, tracker: Tracker) -> None:
        """Read the list of its stages."""
        self.tracker = tracker
        self.tracked = tracker.stages()
        self.again = marked(tracker)
        self._runs: dict[str, list[Tracked]] = {}
        self._alike: dict[tuple[str, str], _Alike] = {}
        for one in self.tracked:
            self._runs.setdefault(one.key, []).append(one)
            if one.status == "finished":
                self._alike.setdefault(_group(one.stage), _Alike()).add(one)
        self._parents = {one.key: one.stage for one in self.tracked}

    @property
    def stages(self) -> Mapping[str, Stage]:
        """All stages that are known, by key."""
        return self._parents

    def find(self, text: str) -> Stage:
        """A stage by its title, or the beginning of its key or of its run's id.

        It may be one that only the plan of a grid holds, and of which nothing is there yet.

        Raises:
            ElthError: there is none, or more than one.
        """
        runs = {one.run_id: one.key for one in self.tracked}
        stages = dict(self._parents)
        where = f"the store {self.tracker.store}"
        try:
            return find(text, stages, runs, where)
        except ElthError:
            for name in self.tracker.grids.names():
                stages |= _planned(self.tracker, name)
            self._parents |= {key: s for key, s in stages.items() if key not in self._parents}
            return find(text, stages, runs, where)

    def why(self, stage: Stage, stages: Mapping[str, Stage]) -> Why:
        """What is known of a stage.

        Args:
            stage: it.
            stages: those of its plan, in which its ancestors are.
        """
        runs = sorted(
            self._runs.get(stage.key, ()),
            key=lambda one: (one.run_id in self.again, _ORDER.index(one.status)),
        )
        if not runs:
            return self._to_do(stage, stages)
        one = runs[0]
        state, reason = one.status, ""
        if one.status == "finished":
            run = self.again.get(one.run_id)
            state = "finished" if run is None else "to do again"
            reason = "" if run is None else OUTDATED if STALE in run.data.tags else NAMED
        elif one.status == "running":
            reason = "a process is at it, or its machine is not heard of"
        elif one.status == "failed":
            again = "elth run --retry-failed" if one.is_final else "the next elth run"
            reason = f"{one.reason or 'no reason is known'} ({again} does it again)"
        elif one.status == "set aside":
            reason = f"{one.reason} (the next elth run does it again)"
            if stage.is_given:
                reason = f"{one.reason} ({how_to_import(stage)} brings it anew)"
        else:
            state, reason = "interrupted", "its process ended; the next elth run goes on with it"
        return Why(stage=stage, state=state, reason=reason, run_id=one.run_id)

    def _to_do(self, stage: Stage, stages: Mapping[str, Stage]) -> Why:
        if stage.is_given:
            known = [one.stage for one in self.tracked]
            (reason,) = lacking({stage.key: stage}, (), known, str(self.tracker.store))
            return Why(stage=stage, state="to do", reason=reason)
        alike = self._alike.get(_group(stage))
        network, kind = stage.labels["network"], stage.kind.replace("_", " ")
        if alike is None:
            reason = f"nothing comparable: the store has no finished {kind} of {network}"
            return Why(stage=stage, state="to do", reason=reason)
        axes, some = alike.nearest(_labels(stage))
        compared = [
            (compare(one.stage, stage, self._parents.get, stages.get), one)
            for one in some[-_COMPARED:]
        ]
        differences, nearest = min(compared, key=lambda pair: len(pair[0]))
        if axes:
            reason = f"no finished one has its {' and '.join(axes)}"
        else:
            reason = "; ".join(told(one) for one in differences)
        return Why(
            stage=stage,
            state="to do",
            reason=reason,
            nearest=nearest,
            axes=axes,
            differences=differences,
        )

    def facts(self, why: Why, stages: Mapping[str, Stage]) -> list[str]:
        """Lines of what the store says of the run of a stage, and of those that it is made of."""
        lines = []
        if why.run_id:
            lines += _of_run(self.tracker.client.get_run(why.run_id), why.state)
            if why.state == "failed" and (log := log_of(self.tracker, why.run_id)):
                lines += ["its traceback.txt ends with", *(f"  {line}" for line in log)]
        elif self._deleted(why.stage.key):
            lines.append("a run of it is there and deleted: MLflow's trash, which can be restored")
        for key in why.stage.parents:
            parent = stages.get(key) or self._parents.get(key)
            if parent is not None:
                lines.append(f"made of: {parent.title}, {self.why(parent, stages).state}")
        return lines

    def _deleted(self, key: str) -> bool:
        experiment = self.tracker.experiments[STAGES]
        text = f"tags.`elth.key` = '{key}'"
        view = ViewType.DELETED_ONLY
        return bool(len(next(pages(self.tracker.client, experiment, text, view=view))))


class _Alike:
    """Finished stages of one kind and network by their labels, oldest first."""

    def __init__(self) -> None:
        self._found: dict[tuple[tuple[str, str], ...], list[Tracked]] = {}

    def add(self, one: Tracked) -> None:
        self._found.setdefault(tuple(_labels(one.stage).items()), []).append(one)

    def nearest(self, labels: Mapping[str, str]) -> tuple[tuple[str, ...], list[Tracked]]:
        """Those with the fewest other labels, of several the latest; and which labels these are."""
        some = self._found.get(tuple(labels.items()))
        if some is not None:
            return (), some
        groups, codes, table = self._coded
        own = [known.get(labels.get(name), -1) for name, known in codes.items()]
        # What is asked for may have labels that none of them has: they count alike for all.
        there, some = groups[int((table != own).sum(axis=1).argmin())]
        axes = dict.fromkeys((*labels, *there))
        return tuple(name for name in axes if labels.get(name) != there.get(name)), some

    @functools.cached_property
    def _coded(self) -> tuple[list[_Group], dict[str, _Codes], npt.NDArray[np.int64]]:
        """The groups, latest first; of each label the numbers of its values; a row for each group.

        A plan may ask of thousands.
        """
        groups = [(dict(there), some) for there, some in self._found.items()]
        groups.sort(key=lambda group: -group[1][-1].started)
        codes: dict[str, _Codes] = {name: {} for there, _ in groups for name in there}
        table = [
            [known.setdefault(there.get(name), len(known)) for name, known in codes.items()]
            for there, _ in groups
        ]
        return groups, codes, np.array(table)


_Group = tuple[dict[str, str], list[Tracked]]
_Codes = dict[str | None, int]


def grouped(reasons: Iterable[Why]) -> dict[tuple[str, str], list[Why]]:
    """Stages by state and reason, in their order."""
    groups: dict[tuple[str, str], list[Why]] = {}
    for why in reasons:
        groups.setdefault((why.state, why.reason), []).append(why)
    return groups


def told(difference: Difference) -> str:
    """A difference from the nearest finished stage, for people."""
    place = f" of {difference.where}" if difference.where else ""
    meaning = _meaning(difference.path)
    return (
        f"{difference.path}{place}{meaning} is {shown(difference.b)}, "
        f"and {shown(difference.a)} in the store"
    )


def _meaning(path: str) -> str:
    """What a field stands for whose name does not say it."""
    first, *_, last = ["", *path.split(".")]
    first = path.split(".", maxsplit=1)[0]
    if first == "dataset":
        return " (which data it is)"
    if last == "network_version":
        return " (the network's code from outside)"
    return " (of the code that is called)" if last == "version" else ""


def _labels(stage: Stage) -> dict[str, str]:
    """By which stages are alike; what a grid calls its variants is in none that is kept."""
    apart = ("place", VARIANT)
    return {name: str(value) for name, value in sorted(stage.labels.items()) if name not in apart}


def _group(stage: Stage) -> tuple[str, str]:
    return stage.kind, str(stage.labels["network"])


def _of_run(run: Run, state: str) -> list[str]:
    tags = run.data.tags
    began = int(run.info.start_time)
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(began / 1000))
    host = tags.get("host", "a host that is not known")
    lines = [f"run {run.info.run_id}, begun {when} on {host}"]
    if state == "running":
        since = duration(max(time.time() - began / 1000, 0.0))
        lines[0] += f", at it for {since} by {in_words(tags.get('elth.owner', ''))}"
    grids = sorted(tag.removeprefix("grid.") for tag in tags if tag.startswith("grid."))
    if grids:
        lines.append(f"grids: {', '.join(grids)}")
    if "elth.numerics" in tags:
        lines.append(f"numerics class: {tags['elth.numerics']}")
    accuracy = run.data.metrics.get("test_accuracy")
    if accuracy is not None and run.info.status == "FINISHED":
        lines.append(f"test accuracy: {accuracy:.2f} %")
    return lines


def _planned(tracker: Tracker, grid: str) -> Mapping[str, Stage]:
    """The stages of a grid's plan; none if it cannot be worked out here."""
    try:
        with plugins.closed():
            return plans.build(experiment_of(tracker, grid), is_stored=True).stages
    except ElthError:
        return {}


def experiment_of(tracker: Tracker, grid: str) -> Experiment:
    """The experiment of a grid as it was run last; no code from outside is run for it.

    Raises:
        ElthError: the store has no such grid, or its experiment means nothing here.
    """
    plain = tracker.grids.experiment(grid)
    try:
        with plugins.closed():  # a store has nothing run
            return Experiment.model_validate(plain)
    except (ElthError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise ElthError(
            f"the experiment of the grid {grid} cannot be worked out here ({first}): give its "
            "config instead"
        ) from error
