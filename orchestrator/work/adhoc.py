"""A measure of tracked runs that is done at once and kept nowhere."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import Run

from elth import data
from elth.analysis import Subject, numbers
from elth.data import Dataset
from elth.errors import ElthError
from elth.measures import check_count, measure_of, settings_of, version_of
from orchestrator.plan.analysing import check_alike
from orchestrator.plan.stage import (
    ANALYSIS,
    LOOKS_AT,
    MEASURE,
    SPARSE,
    Stage,
    check_same_dataset,
    dataset_of,
)
from orchestrator.store.listing import stage_of
from orchestrator.store.marks import is_finished
from orchestrator.store.result import Result
from orchestrator.store.tracker import Tracker
from orchestrator.work.analysing import Look, looks_of, measured, needs_data
from orchestrator.work.tickets import why_no_weights

RATE = "rate"
"""What is given, beside settings, for a measure that must know what the next pruning takes."""


@dataclass(frozen=True, kw_only=True)
class Inquiry:
    """A measure of some tracked trainings."""

    stage: Stage
    """As a grid would ask for it."""
    runs: tuple[str, ...]
    """The ids of the runs of the trainings, in their order."""
    looks: tuple[Look, ...]

    def dataset(self, root: Path, device: str) -> Dataset | None:
        """The dataset of the trainings on a device; None for a measure that needs none.

        Args:
            root: where datasets lie.
            device: ``cpu`` or ``cuda``.

        Raises:
            ElthError: it is not there, or is another than it was trained on.
        """
        if not needs_data(self.stage):
            return None
        found = data.load(dataset_of(self.stage), root)
        check_same_dataset(self.looks[0].stage, found.info.identity(), "put back what was there")
        return found.to(device)

    def steps(
        self, dataset: Dataset | None
    ) -> Generator[tuple[float, Mapping[str, Any]], None, dict[str, Any]]:
        """Do it; yields how far it is, returns what it comes to, as ``elth.analysis.measure``."""
        return measured(self.stage, self.looks, dataset, {})

    def plain(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """What was asked and what it came to, as JSON values."""
        name = self.stage.params["measure"]
        settings = settings_of(name, self.stage.params.get("settings", {}))
        rate = {RATE: self.stage.params[RATE]} if RATE in self.stage.params else {}
        return {
            "measure": name,
            "version": version_of(name, settings),
            "settings": {**vars(settings), **rate},
            "of": [
                {"run": run_id, "key": one.stage.key, "title": one.stage.title}
                for run_id, one in zip(self.runs, self.looks, strict=True)
            ],
            "numbers": numbers(name, result),
            "result": dict(result),
        }


def inquire(
    tracker: Tracker, name: str, run_ids: Sequence[str], given: Mapping[str, Any]
) -> Inquiry:
    """Read what a measure of some runs looks at; nothing is written.

    Args:
        tracker: of the store.
        name: the measure.
        run_ids: each a run, or the key of its stage, or the beginning of one.
        given: settings of the measure that differ from its defaults, and ``rate``.

    Raises:
        ElthError: there is no such measure, setting or run, they are too many or too few, of
            different networks or datasets, or one has no trained weights.
    """
    known, given = measure_of(name), dict(given)
    rate = given.pop(RATE, None) if known.needs_rate else None
    settings = settings_of(name, given).plain()
    check_count(name, len(run_ids))
    runs = [tracker.get(run_id) for run_id in run_ids]
    stages = [_training(run) for run in runs]
    check_alike(stages)
    if known.needs_rate:
        rates = [one.params["rate"] for one in stages if "rate" in one.params]
        if rate is None and not rates:
            raise ElthError(
                f"measure {name} must know which fraction of the weights the next pruning takes, "
                f"which no such run tells: give it, as {RATE}=0.2"
            )
        rate = _fraction(rate) if rate is not None else rates[0]
    stage = Stage(
        kind=ANALYSIS,
        params={
            "measure": name,
            **({"settings": settings} if settings else {}),
            **({RATE: str(rate)} if rate is not None else {}),
        },
        parents=tuple(one.key for one in stages),
        labels={**stages[0].labels, MEASURE: name, LOOKS_AT: ""},
    )
    by_key = {one.key: run for one, run in zip(stages, runs, strict=True)}

    def load(key: str) -> tuple[Stage, Result]:
        if key not in by_key:
            return tracker.load(key, partial=True)
        found, result = tracker.load_run(by_key[key], partial=True)
        if result.trained is None:
            raise ElthError(why_no_weights(found, by_key[key]))
        return found, result

    ids = tuple(str(run.info.run_id) for run in runs)
    return Inquiry(stage=stage, runs=ids, looks=looks_of(stage, load))


def look(tracker: Tracker, run_id: str) -> Subject:
    """A tracked training as measures look at it.

    Raises:
        ElthError: there is no such run, or it has no trained weights.
    """
    (found,) = inquire(tracker, "travel", [run_id], {}).looks
    return found.subject


def _training(run: Run) -> Stage:
    """The training of a run.

    Raises:
        ElthError: it is something else, or is not finished.
    """
    stage, name = stage_of(run), run.info.run_id[:8]
    if stage.kind not in ("round", "retraining", SPARSE):
        kind = {"rewind_point": "a rewind point"}.get(stage.kind, f"an {stage.kind} stage")
        raise ElthError(
            f"a measure looks at trained tickets, and run {name} ({stage.title}) is {kind}: name a "
            "round or a retraining"
        )
    if not is_finished(run):
        raise ElthError(
            f"run {name} ({stage.title}) is {run.info.status.lower()}: a measure looks at what is "
            "finished"
        )
    return stage


def _fraction(value: Any) -> float:
    if not isinstance(value, int | float) or not 0 < value < 1:
        raise ElthError(f"{RATE} must be a fraction between 0 and 1, found {value!r}")
    return float(value)
