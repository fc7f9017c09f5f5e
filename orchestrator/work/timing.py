"""How long an iteration of each network of a plan takes here: as it is known, or timed now.

``elth plan --time`` does a few real iterations. As many processes as trials at a time do them at
once, as trials get into each other's way: they share caches, memory and often cores or a GPU.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from elth import plugins
from elth.apart import apart
from elth.errors import ElthError
from orchestrator.experiment.sections import Experiment
from orchestrator.plan.estimating import Trained, known_steps, step_of, trained
from orchestrator.plan.stage import Stage, dataset_of
from orchestrator.work.resources import compiles, gpus_here, kind_here, read_datasets

_AT_ONCE = 8
"""Processes at most: more of them do not change much."""
_WARM_UP = 3
_SECONDS = 1.5
"""For how long iterations are timed."""
_MOST = 50
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def known(experiment: Experiment, stages: Sequence[Stage]) -> dict[Trained, float]:
    """Seconds of an iteration, of what was timed on this machine before."""
    resources = experiment.resources
    if resources.workers > 1:  # each has its part of a batch, and they wait for each other
        return {}
    device = "cuda" if resources.gpus else "cpu"
    return known_steps(
        stages,
        threads=resources.cpus,
        device=device,
        compiled={
            what: compiles(stage, resources.compile, device)
            for what, stage in trained(stages).items()
        },
        kind=kind_here() if resources.gpus else "",
    )


def timed(experiment: Experiment, stages: Sequence[Stage], count: int) -> dict[Trained, float]:
    """Seconds of an iteration of each network and recipe, which are remembered.

    Args:
        experiment: what trials get.
        stages: what is to be done.
        count: trials at a time.

    Raises:
        ElthError: a dataset cannot be read here, or a network cannot be trained here.
    """
    found = trained(stages)
    if not found:
        return {}
    resources = experiment.resources
    if resources.workers > 1:
        raise ElthError(
            "a training by several workers is not timed before it is run: leave out --time, or "
            "time it with resources.workers=1"
        )
    names = list(dict.fromkeys(dataset_of(stage) for stage in found.values()))
    root, download = experiment.data.root, experiment.data.download
    apart(read_datasets, names, root, download=download, paths=plugins.in_use())
    device = "cuda" if resources.gpus else "cpu"
    task = {
        "stages": [stage.describe() for stage in found.values()],
        "threads": resources.cpus,
        "device": device,
        "compile": resources.compile,
        "root": str(root.absolute()),
        "plugins": list(plugins.in_use()),
    }
    tasks = [task] * max(1, min(count, _AT_ONCE))
    if resources.gpus:  # as Ray does, which fills one before it takes another
        each = int(1 / resources.gpus)
        places = [gpu for gpu in _gpus(gpus_here()) for _ in range(each)]
        tasks = [{**task, "gpu": gpu} for gpu in places[: len(tasks)]] or tasks[:1]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(tasks), mp_context=context, initializer=_quietly) as pool:
        try:
            answers = list(pool.map(_measure, tasks))
        except BrokenProcessPool as error:
            raise ElthError(
                "a process that was to time a few iterations was ended: is there too little memory?"
            ) from error
        except (ArithmeticError, RuntimeError) as error:  # not finite; or no memory, of a GPU
            raise ElthError(f"a few iterations could not be timed: {error}") from error
    times = {
        what: statistics.fmean(one[index] for one in answers) for index, what in enumerate(found)
    }
    kind = kind_here() if resources.gpus else ""
    for what, stage in found.items():
        step = step_of(
            stage,
            threads=resources.cpus,
            device=device,
            kind=kind,
            compiled=compiles(stage, resources.compile, device),
        )
        step.keep(times[what])
    return times


def _gpus(count: int) -> list[str]:
    """So many GPUs, each as ``CUDA_VISIBLE_DEVICES`` names it alone."""
    told = os.environ.get(_VISIBLE)
    names = map(str, range(count)) if told is None else map(str.strip, told.split(","))
    return list(names)[:count]


def _quietly() -> None:
    """Let Ctrl-C, which reaches every process of a terminal, end this one without a traceback.

    And let nothing that code from outside prints come between what the command prints.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.dup2(2, 1)


def _measure(task: Mapping[str, Any]) -> list[float]:
    """Seconds of an iteration of each stage; in a process of its own, on its own GPU."""
    if "gpu" in task:
        os.environ[_VISIBLE] = task["gpu"]  # before torch looks
    import torch

    from elth import data
    from orchestrator.work.training import Engines

    plugins.use(task["plugins"])
    torch.set_num_threads(min(task["threads"], os.cpu_count() or 1))
    engines, datasets, found = Engines(), {}, []
    for stage in map(Stage.of, task["stages"]):
        name = dataset_of(stage)
        if name not in datasets:
            read = data.load(name, task["root"], download=False)
            datasets[name] = read.to(task["device"])
        compile = compiles(stage, task["compile"], task["device"])
        engine = engines.get(stage, datasets[name], compile=compile)
        found.append(_seconds(stage, datasets[name], engine))
    return found


def _seconds(stage: Stage, dataset: Any, engine: Any) -> float:
    """Seconds of an iteration of the training that a stage does, with a mask of all ones."""
    from elth import masks
    from elth.networks import build
    from elth.training import Training
    from orchestrator.plan.stage import per_epoch

    recipe = stage.recipe
    network = build(stage.params["network"], dataset.info.shape)

    def train(count: int) -> float:
        training = Training(
            engine,
            dataset,
            recipe,
            seed=0,
            state=network.state_dict(),
            mask=masks.ones(network),
            stop=count,
        )
        began = time.perf_counter()
        while training.step < count:
            training.train_epoch()  # the device is waited for at its end
        return time.perf_counter() - began

    most = min(_MOST, recipe.length.iterations(per_epoch(stage)))
    few = min(_WARM_UP, most)
    train(few)
    once = train(few) / few
    count = max(few, min(most, int(_SECONDS / once)))
    return train(count) / count
