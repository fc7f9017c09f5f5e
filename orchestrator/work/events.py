"""What Tune waits for: results of trials, their starts and ends; with hundreds of trials as well.

Tune takes one event a turn of its loop, for which it has Ray look at what all trials are at, and it
keeps a reference to every result of a process for as long as that lives, so that none of them is
ever freed. With a few trials neither matters. With five hundred, whose processes stay for days,
the second takes gigabytes, and while the first is done the trials stand still.

So ``Events`` takes in one turn all results that have come, and lets go of what it has taken.

And a trial whose process is being started is often given one that has become free meanwhile. Tune
then has the first ended as soon as it is up, and ends itself only after that: seconds, and a core
for as long. ``Events`` ends it at once, where nothing is begun while it starts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import ray
from ray.air.execution._internal import RayActorManager, TrackedActor
from ray.tune.execution import tune_controller


class Events(RayActorManager):
    """Tune's own, but for the three things above."""

    ends_starting = False
    """Whether a process that is no longer needed is ended before it is up."""

    def next(self, timeout: float | None = None) -> bool:
        """Wait for an event, and take it with all other results that are there.

        A result that ends a trial is the last one of a turn: Tune then asks for the next job, which
        finds the process still there. It keeps one such process, and would end those of others.

        Args:
            timeout: seconds; None: as long as it takes.

        Returns:
            whether there was an event.
        """
        tasks = self._actor_task_events
        before = tasks.num_futures
        if not super().next(timeout=timeout):
            return False
        if not tasks.num_futures or tasks.num_futures < before:
            return True
        waiting = list(tasks._tracked_futures)  # of which the oldest come first
        ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        for future in ready:
            if future not in tasks._tracked_futures:  # its trial has ended meanwhile
                continue
            before = tasks.num_futures
            tasks.resolve_future(future)
            if tasks.num_futures < before:
                break
        return True

    def remove_actor(
        self,
        tracked_actor: TrackedActor,
        kill: bool = False,
        stop_future: ray.ObjectRef[Any] | None = None,
    ) -> bool:
        """End a process, at once if it is not up yet; what Tune waits for is then its death."""
        live = self._live_actors_to_ray_actors_resources.get(tracked_actor)
        is_starting = bool(self._tracked_actors_to_state_futures.get(tracked_actor))
        was_alive = super().remove_actor(tracked_actor, kill=kill, stop_future=stop_future)
        if self.ends_starting and was_alive and is_starting and live is not None and not kill:
            with contextlib.suppress(Exception):  # it has been asked to end at any rate
                ray.kill(live[0])
        return was_alive

    def _actor_task_resolved(self, tracked_actor_task: Any, result: Any) -> None:
        actor = tracked_actor_task._tracked_actor
        tracked = self._actor_task_events._tracked_futures
        kept = self._tracked_actors_to_task_futures[actor]
        kept.difference_update([future for future in kept if future not in tracked])
        super()._actor_task_resolved(tracked_actor_task=tracked_actor_task, result=result)


class Lone(Events):
    """Of trials that each are one process, and begin nothing while it starts."""

    ends_starting = True


@contextlib.contextmanager
def together(kind: type[Events] = Events) -> Iterator[None]:
    """Have Tune take them so; as before where it has another way of its own by now."""
    known = vars(tune_controller).get("RayActorManager") is RayActorManager
    if not known or not _is_as_known():
        yield
        return
    vars(tune_controller)["RayActorManager"] = kind
    try:
        yield
    finally:
        vars(tune_controller)["RayActorManager"] = RayActorManager


def _is_as_known() -> bool:
    """Whether Ray's class has what ``Events`` leans on."""
    nothing: Any = None
    made = RayActorManager(resource_manager=nothing)
    return all(
        hasattr(*one)
        for one in (
            (made, "_actor_task_resolved"),
            (made, "_tracked_actors_to_task_futures"),
            (made, "_tracked_actors_to_state_futures"),
            (made, "_live_actors_to_ray_actors_resources"),
            (made._actor_task_events, "_tracked_futures"),
            (made._actor_task_events, "num_futures"),
        )
    )
