"""The experiments of a store in MLflow, and what people who tidy MLflow's pages do with them.

An experiment that was deleted there is not gone: MLflow marks it and its runs, and refuses what is
written to them, until ``mlflow gc``. Those that only help are taken back by themselves, the one
with the stages by a command, as whoever deleted it may have meant it. Taken back, *all* runs of an
experiment are there again, also those that had been deleted before it: MLflow does not keep which
were. What is known of them by other means is deleted again (``settle``).

Each experiment carries a tag, so that it is found by another name too, and a description.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Experiment, LifecycleStage, Run, ViewType
from mlflow.exceptions import MlflowException

from orchestrator.store import board
from orchestrator.store.address import Store
from orchestrator.store.board import ROOT, ROOT_TAG
from orchestrator.store.describing import NUMBERED
from orchestrator.store.grids import GRIDS, KEEP, REMOVED
from orchestrator.store.listing import DAMAGED, INDEX, INDEX_NOTE, POINTER, pages
from orchestrator.store.opening import MARK, NOTE, STAGES

NOTES = {
    STAGES: "The stages of elth, each a run: rewind points, rounds of pruning, retrainings. The "
    "tag `grid.NAME` says which grids a run belongs to. A run that is deleted is done again by the "
    "next `elth run` that needs it. Do not rename or delete the experiment itself: elth finds its "
    "runs by it.",
    GRIDS: "The grids of elth, each a run, with what it consists of and its last report. Please do "
    "not delete: `elth report` finds a grid by its run.",
    INDEX: INDEX_NOTE,
    **board.NOTES,
}
"""The description of each experiment. Those after the first only help."""

_BY_EXPERIMENT = {ROOT: ROOT_TAG, INDEX: POINTER}
_BY_RUN = {STAGES: "elth.stage", GRIDS: "elth.grid"}
"""Tags by which the experiments of a store are known that was made before they had ``MARK``."""


@dataclass(frozen=True, kw_only=True)
class Astray:
    """One of our experiments that was deleted or renamed, or runs of one that are needed."""

    store: Store
    name: str
    experiment: str
    """Its id."""
    now: str = ""
    """The name that it has now; empty if it was deleted."""
    runs: int = 0
    """How many runs of it were deleted, if it was not."""

    @property
    def is_needed(self) -> bool:
        """Whether a store cannot even be read without it."""
        return self.name in (STAGES, GRIDS) and not self.runs

    @property
    def what(self) -> str:
        """What was done to it."""
        whose = f"experiment '{self.name}' of the store {self.store}"
        if self.runs:
            return f"{self.runs} runs of the {whose}, which elth needs, are deleted"
        return f"the {whose} is called '{self.now}'" if self.now else f"the {whose} is deleted"

    @property
    def do(self) -> str:
        """What to do about it."""
        command = f"elth doctor --restore --store {self.store}"
        if self.name == STAGES:
            return f"{command} takes it back; to begin anew, name another store by --store"
        return f"the next elth run takes it back by itself, or now {command}"

    @property
    def told(self) -> str:
        """Both, for a command that cannot go on."""
        return f"{self.what} (in MLflow's pages?), and nothing is lost: {self.do}"


def look(client: MlflowClient, store: Store) -> list[Astray]:
    """All that was deleted or renamed and is needed."""
    found = {name: find(client, store, name) for name in NOTES}
    lost = [one for one in found.values() if isinstance(one, Astray)]
    leases = found[board.BOARDS]
    if isinstance(leases, Experiment):
        ours = str(leases.experiment_id)
        some = pages(client, ours, view=ViewType.DELETED_ONLY)
        count = sum(1 for page in some for run in page if run.data.params)
        if count:
            lost.append(Astray(store=store, name=board.BOARDS, experiment=ours, runs=count))
    return lost


def find(client: MlflowClient, store: Store, name: str) -> Experiment | Astray | None:
    """One of our experiments, by its name or else by what marks it; None if there is none."""
    found = client.get_experiment_by_name(name)
    if found is None:
        other = _by_another_name(client, name)
        return None if other is None else _renamed(store, name, other)
    if found.lifecycle_stage == LifecycleStage.DELETED:
        return Astray(store=store, name=name, experiment=str(found.experiment_id))
    return found


def _renamed(store: Store, name: str, other: Experiment) -> Astray:
    return Astray(store=store, name=name, experiment=str(other.experiment_id), now=other.name)


def _by_another_name(client: MlflowClient, name: str) -> Experiment | None:
    texts = [f"tags.`{MARK}` = '{name}'"]
    if name in _BY_EXPERIMENT:
        texts.append(f"tags.`{_BY_EXPERIMENT[name]}` != ''")
    for text in texts:
        for found in client.search_experiments(ViewType.ALL, filter_string=text):
            if found.tags.get(MARK, name) == name:
                return found
    if name in _BY_RUN:
        ours = [one for one in _all(client) if MARK not in one.tags and one.name not in NOTES]
        ids = [str(one.experiment_id) for one in ours if one.name != "Default"]
        text = f"tags.`{_BY_RUN[name]}` != ''"
        runs = client.search_runs(ids, text, ViewType.ALL, max_results=1) if ids else ()
        for run in runs:
            return client.get_experiment(run.info.experiment_id)
    return None


def _all(client: MlflowClient) -> Iterator[Experiment]:
    token = None
    while True:
        page = client.search_experiments(ViewType.ALL, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def make(client: MlflowClient, name: str, artifacts: str | None) -> str:
    """Create one of our experiments; returns its id."""
    given = {MARK: name, NOTE: NOTES[name], **({NUMBERED: "true"} if name == STAGES else {})}
    return str(client.create_experiment(name, artifact_location=artifacts, tags=given))


def take_back(client: MlflowClient, lost: Astray) -> str:
    """Let an experiment be active and have its name again; returns what a person should know."""
    try:
        found = client.get_experiment(lost.experiment)
        if found.lifecycle_stage == LifecycleStage.DELETED:
            client.restore_experiment(lost.experiment)
        if found.name != lost.name:
            client.rename_experiment(lost.experiment, lost.name)
    except MlflowException:  # another process may have been quicker
        found = client.get_experiment(lost.experiment)
        if found.lifecycle_stage == LifecycleStage.DELETED or found.name != lost.name:
            raise
    return f"{lost.what}: it is taken back"


def describe(client: MlflowClient, found: Experiment) -> None:
    """Mark and describe an experiment, and the runs of one that helps, of before ours were."""
    if MARK in found.tags:
        return
    if found.name != STAGES:
        for page in pages(client, str(found.experiment_id)):
            for run in page:
                told = run.data.tags.get(NOTE, "")
                if found.name == GRIDS:  # it tells what the config says of the grid
                    client.set_tag(run.info.run_id, NOTE, f"{told}\n\n{KEEP}".lstrip())
                elif not told:
                    client.set_tag(run.info.run_id, NOTE, NOTES[found.name])
    for tag, value in {NOTE: NOTES[found.name], MARK: found.name}.items():
        if tag not in found.tags:
            client.set_experiment_tag(found.experiment_id, tag, value)


def settle(
    client: MlflowClient,
    experiment: str,
    latest: Callable[[str], tuple[int, str]],
    deleted: frozenset[str],
) -> int:
    """Delete again, of an experiment of stages that was taken back, what was deleted before it.

    That are attempts that another one has taken over, runs that were deleted as their stage was
    done again, what elth was told to remove, and those of ``deleted``.

    Args:
        client: of the store.
        experiment: its id.
        latest: the last lease of a stage by its key, and the run that holds it.
        deleted: runs that were found deleted when the store was last listed.

    Returns:
        how many.
    """
    by_key: dict[str, list[Run]] = {}
    gone = set(deleted)
    there = set()
    for page in pages(client, experiment):
        for run in page:
            there.add(run.info.run_id)
            if REMOVED in run.data.tags:
                gone.add(run.info.run_id)
            if run.info.run_id not in gone and DAMAGED not in run.data.tags:
                by_key.setdefault(run.data.tags.get("elth.key", ""), []).append(run)
    by_key.pop("", None)  # of strangers
    for key, runs in by_key.items():
        if len(runs) > 1:
            done = [run for run in runs if run.info.status == "FINISHED"] or runs
            # Whoever holds the last lease began as none was finished, and fenced off the others,
            # unless one of them was quicker.
            holder = latest(key)[1]
            stays = next((run for run in done if run.info.run_id == holder), done[-1])
            gone |= {run.info.run_id for run in runs if run is not stays}
    for run_id in gone & there:
        client.delete_run(run_id)
    return len(gone & there)
