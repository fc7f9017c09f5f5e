"""How a person names a stage: by its title, or by the beginning of its key or of its run's id."""

from __future__ import annotations

import re
from collections.abc import Mapping

from elth.errors import ElthError, nearest
from orchestrator.plan.stage import Stage

_SHOWN = 5


def find(text: str, stages: Mapping[str, Stage], runs: Mapping[str, str], where: str) -> Stage:
    """The one stage that is meant.

    Args:
        text: its title, as ``resnet20 round 3, seed 0``, or the beginning of its key or of the id
            of one of its runs, of six letters or more.
        stages: those that may be meant, by key.
        runs: keys of stages by the ids of their runs.
        where: what these are the stages of, for messages.

    Raises:
        ElthError: it is none of them, or more than one.
    """
    text = text.strip()
    found = {key: None for key, stage in stages.items() if stage.title == text}
    if not found and re.fullmatch(r"[0-9a-f]{6,64}", text):
        found = {key: None for key in stages if key.startswith(text)}
        found |= {key: None for run, key in runs.items() if run.startswith(text) and key in stages}
    if len(found) == 1:
        return stages[next(iter(found))]
    if found:
        some = ", ".join(f"{key[:12]} ({stages[key].title})" for key in list(found)[:_SHOWN])
        raise ElthError(
            f"'{text}' names {len(found)} stages of {where}: give more of the key of one: {some}"
        )
    titles = [stage.title for stage in stages.values()]
    raise ElthError(
        f"'{text}' is no stage of {where}{nearest(text, titles)} (a stage is named by its title, "
        "or by the beginning of its key or run id, six letters at least)"
    )
