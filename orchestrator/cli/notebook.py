"""The system from Python: what ``elth run``, ``report`` and ``ticket export`` do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from elth.errors import ElthError, unknown
from orchestrator.cli.common import asked, find_store, open_tracker, out
from orchestrator.experiment.axes import CELL
from orchestrator.plan.only import Only

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from elth.analysis import Subject
    from elth.tickets import Ticket
    from orchestrator.report.cells import Report
    from orchestrator.report.judgement import Judgement
    from orchestrator.store.content import Content
    from orchestrator.store.tracker import Tracker

COLUMNS = (
    "network",
    "method",
    "source",
    "transform",
    "round",
    "target",
    "variant",
    "noise",
    "ticket",
    "sparsity",
    "dataset",
    "seed",
    "nonzeros",
    "accuracy",
    "run_id",
)
"""The columns of ``Results.frame``; ``target`` is an exact sparsity, or empty for a whole round,
``noise`` the number of a twin, or 0, ``ticket`` the imported one from which rounds are counted."""

_VALUES = ("sparsity", "nonzeros", "accuracy", "run_id")
"""The columns by which no cell is told from another."""
_OF_ANALYSES = ("measure", "network", "dataset", "looks_at", "between")

_SHOWN = 10
"""Values of an axis that an error lists."""


def run(
    config: str | Path,
    overrides: Sequence[str] = (),
    *,
    store: str | Path | None = None,
    retry_failed: bool = False,
    replace: bool = False,
    redo: Sequence[str] = (),
    only: str | Sequence[str] = (),
    address: str | None = None,
    quiet: bool = False,
) -> Results:
    """Run every stage of an experiment that is not finished in the store, as ``elth run`` does.

    Call it again after any interruption, and it goes on.

    Args:
        config: the YAML file, or the name of a config that comes with elth, as ``quickstart``.
        overrides: what is changed in it, as ``["seeds=[0]", "pruning.rounds=3"]``.
        store: where runs are kept, a directory or an MLflow address; by default
            ``MLFLOW_TRACKING_URI``, else ``runs``.
        retry_failed: do stages again whose loss was not finite.
        replace: let the grid be what the file says, also where it held other cells; no run is
            deleted.
        redo: stages to do again though they are finished, by title, key or run id; and what was
            made of them, where they come out different.
        only: the part that is done, with what it needs, as ``"method=ett,network=resnet32"``; of
            several texts what they choose adds up. The grid is recorded whole.
        address: a Ray cluster to run on; by default ``RAY_ADDRESS``, else a Ray of its own here.
        quiet: print neither progress nor tables.

    Returns:
        The results of what the config asks for, or of that part, as ``results`` gives them. The
        grid of its name may hold more, such as seeds that were given before.

    Raises:
        ElthError: the config is wrong or cannot be met here, its grid holds other cells, or stages
            failed; all others are finished then.
        KeyboardInterrupt: it was stopped; what is tracked stays.
    """
    from orchestrator import plan as plans
    from orchestrator.cluster import machines
    from orchestrator.report.cells import collect
    from orchestrator.store.content import Content
    from orchestrator.work.driver import execute

    given = [overrides] if isinstance(overrides, str) else list(overrides)
    chosen = _chosen(only)
    experiment, built = plans.of_file(config, given)
    address = machines.address_of(address)
    failed = execute(
        experiment,
        built,
        find_store(_place(store)),
        Console(quiet=True) if quiet else out,
        retry_failed=retry_failed,
        replace=replace,
        redo=[redo] if isinstance(redo, str) else list(redo),
        machines=machines.cluster(address, experiment.resources.cpus) if address else None,
        only=chosen,
    )
    if failed:
        reasons = list(failed.values())
        more = f"; and {len(reasons) - 1} more" if len(reasons) > 1 else ""
        raise ElthError(
            f"of {len(built.stages)} stages of {experiment.name} {len(reasons)} failed or could "
            f"not begin: {reasons[0]}{more}; what is finished is in "
            f"orchestrator.results('{experiment.name}')"
        )
    tracker = open_tracker(_place(store))
    content = Content.of(experiment, built)
    report = collect(tracker, experiment.name, content, chosen)
    return Results(report=report, tracker=tracker, asked=content)


def results(
    grid: str | Path,
    overrides: Sequence[str] = (),
    *,
    store: str | Path | None = None,
    only: str | Sequence[str] = (),
) -> Results:
    """The finished stages of a grid, read from the store alone.

    Args:
        grid: the name of an experiment, as ``quickstart``: all that its grid holds; or a YAML file,
            for the cells that it asks for.
        overrides: what is changed in the file.
        store: as of ``run``.
        only: the part that is meant, as of ``run``.

    Raises:
        ElthError: there is no such store, no such grid in it, or nothing of that kind in the grid.
    """
    from orchestrator.report.cells import collect

    tracker = open_tracker(_place(store))
    given = [overrides] if isinstance(overrides, str) else list(overrides)
    name, content = asked(str(grid), given)
    report = collect(tracker, name, content, _chosen(only))
    return Results(report=report, tracker=tracker, asked=content)


def _chosen(only: str | Sequence[str]) -> Only | None:
    return Only.parse([only] if isinstance(only, str) else list(only))


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """What is finished of a grid: as a table, as tickets and as a figure."""

    report: Report
    """Its cells, each over its seeds."""
    tracker: Tracker
    """Of the store."""
    asked: Content | None = None
    """What the file asks for that it is of; of a whole grid None."""

    def __repr__(self) -> str:
        """One line: how much there is."""
        missing = f", {self.report.missing} stages missing" if self.report.missing else ""
        ended = f", {self.report.ended} ended" if self.report.ended else ""
        return f"<Results of {self.report.grid}: {len(self.report.cells)} cells{missing}{ended}>"

    def frame(self) -> pd.DataFrame:
        """A table with a row for each cell and seed, with the columns ``COLUMNS``.

        Accuracy is in percent after the last epoch, sparsity a fraction.
        """
        import pandas as pd

        return pd.DataFrame(self._rows(), columns=list(COLUMNS))

    def ticket(
        self,
        *,
        network: str | None = None,
        method: str | None = None,
        round: int | None = None,
        seed: int | None = None,
        source: str | None = None,
        transform: str | None = None,
        dataset: str | None = None,
        target: str | None = None,
        variant: str | None = None,
        noise: int | None = None,
        ticket: str | None = None,
    ) -> Ticket:
        """The ticket of the one cell and seed that is meant, by as many axes as tell it.

        Raises:
            ElthError: there is none, or more than one; with what there is.
        """
        from orchestrator.work.tickets import tracked_ticket

        asked = {
            "network": network,
            "method": method,
            "source": source,
            "transform": transform,
            "round": round,
            "target": target,
            "ticket": ticket,
            "dataset": dataset,
            "variant": variant,
            "noise": noise,
            "seed": seed,
        }
        return tracked_ticket(self.tracker, self._meant(asked))

    def trained(self, **axes: Any) -> Subject:
        """What ``elth.analysis`` looks at of the one cell and seed that is meant, as of ``ticket``.

        That is its state dict after the training (``trained``), its mask, and what it started from.

        Example:
            ``one.trained, one.mask`` of two rounds are what ``elth.analysis.distance`` takes.

        Raises:
            ElthError: there is none, or more than one; or its trained weights were not kept.
        """
        from orchestrator.work.adhoc import look

        unheard = [name for name in axes if name not in COLUMNS or name in _VALUES]
        if unheard:
            raise unknown("axis", unheard[0], [one for one in COLUMNS if one not in _VALUES])
        return look(self.tracker, self._meant(axes))

    def analyses(self) -> pd.DataFrame:
        """A table of what was measured: a row for each analysis, of a line for each of its rounds.

        ``remaining`` is the fraction of weights of the network that the row stands at, in a pair
        that of the denser one; beside it stand the numbers of all measures. What a measure does not
        have is not a number.
        """
        import pandas as pd

        from orchestrator.report.analyses import AXES, collect

        rows = [
            {
                **{name: getattr(one, name) for name in _OF_ANALYSES},
                **{axis: getattr(at, axis) for axis in (*AXES, "remaining")},
                **numbers,
            }
            for one in collect(self.tracker, self.report.grid, self.asked).found
            for at, numbers in one.points
        ]
        columns = [*_OF_ANALYSES, *AXES, "remaining"]
        return pd.DataFrame(rows, columns=None if rows else columns)

    def judgement(self, against: Sequence[str | Mapping[str, Any]] = ()) -> Judgement:
        """What is said of the cells: each against baselines, and what the experiment claims.

        Args:
            against: methods, or mappings as ``{"method": "ett", "source": "resnet14"}``; dense and
                IMP where none is given.

        Example:
            ``[one.verdict for one in found.judgement().claims]``

        Raises:
            ElthError: one is no method, or no cell has it beside it.
        """
        from orchestrator.report.judgement import AGAINST, judge

        return judge(self.report, against or AGAINST)

    def _meant(self, asked: Mapping[str, Any]) -> str:
        """The run of the one cell and seed that is meant."""
        found = self._rows()
        if not found:
            raise ElthError(f"nothing of {self.report.grid} is finished yet: there is no ticket")
        meant: dict[str, Any] = {}
        for axis, value in asked.items():
            if value is None:
                continue
            known = _values(found, axis)
            if value not in known:
                where = f" ({_spelled(meant)})" if meant else ""
                kind = f"{axis} of {self.report.grid}{where}"
                raise unknown(kind, str(value), [str(one) for one in known])
            meant[axis] = value
            found = [row for row in found if row[axis] == value]
        if len({row["run_id"] for row in found}) != 1:  # variants may have one in common
            raise ElthError(
                f"{len(found)} tickets of {self.report.grid} are meant"
                f"{' by ' * bool(meant)}{_spelled(meant)}: say also {_told_apart(found)}"
            )
        return str(found[0]["run_id"])

    def figure(self) -> Figure:
        """Accuracy against sparsity, a panel for each network and a line for each method.

        In a notebook it is shown after ``%matplotlib inline``; ``savefig`` writes it.

        Raises:
            ElthError: nothing is finished yet.
        """
        from orchestrator.report.figure import plot

        if not self.report.shown:
            raise ElthError(f"nothing of {self.report.grid} is finished yet: there is no figure")
        return plot(self.report)

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {
                **{axis: getattr(cell, axis) for axis in (*CELL, "sparsity")},
                "seed": seed,
                "nonzeros": nonzeros,
                "accuracy": accuracy,
                "run_id": run,
            }
            for cell in self.report.cells
            for seed, nonzeros, accuracy, run in zip(
                cell.seeds, cell.nonzeros, cell.accuracy, cell.runs, strict=True
            )
        ]


def _place(store: str | Path | None) -> str | None:
    return None if store is None else str(store)


def _values(rows: Sequence[dict[str, Any]], axis: str) -> list[Any]:
    """What there is of an axis, in the order of rows."""
    return list(dict.fromkeys(row[axis] for row in rows))


def _spelled(axes: dict[str, Any]) -> str:
    """As ``network='resnet20', round=3``."""
    return ", ".join(f"{axis}={value!r}" for axis, value in axes.items())


def _told_apart(rows: Sequence[dict[str, Any]]) -> str:
    """The axes in which rows differ, as ``seed (0, 1) or round (1, 2, 3)``."""
    told = []
    for axis in (name for name in COLUMNS if name not in _VALUES):
        values = [repr(value) for value in _values(rows, axis)]
        if len(values) > 1:
            more = ", ..." if len(values) > _SHOWN else ""
            told.append(f"{axis} ({', '.join(values[:_SHOWN])}{more})")
    return " or ".join(told)
