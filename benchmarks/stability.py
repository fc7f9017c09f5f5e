"""How near the rounds of IMP are: ``python -m benchmarks.stability --data DIR --out DIR``.

Figures 1, 4 and 8 of Maene et al. (2021) at one batch size and one seed, IMP beside weights that
are drawn anew, for a machine that has PyTorch and no more. Each training is written as it ends, and
the same command goes on after the last one. The barrier is that of the error on the training
images, over the worse end. ``orchestrator`` does the same for all of them: ``elth run
maene_fig1_stability``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import elth
from benchmarks.rows import machine
from elth import analysis, masks
from elth.controls import reinit
from elth.rounds import Round
from elth.specs import DataShape

State = dict[str, Tensor]


@dataclass(frozen=True)
class Trained:
    """A trained round of a chain: how well it does, its mask and its weights, on the CPU."""

    accuracy: float
    mask: State
    state: State


class _TimeUpError(Exception):
    """The minutes that were given are over."""


def _on_cpu(tensors: dict[str, Tensor]) -> State:
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def _write(value: Round | Trained, path: Path) -> None:
    """As tensors and JSON values alone, which are read without executing anything."""
    plain = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Round):
        plain["epochs"] = [dataclasses.asdict(epoch) for epoch in value.epochs]
        plain |= {"network": str(value.network), "shape": dataclasses.asdict(value.shape)}
    torch.save(plain, part := path.with_suffix(".part"))
    part.replace(path)


def _read(path: Path, device: str) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return found


def _round(plain: dict[str, Any]) -> Round:
    plain["epochs"] = tuple(elth.Epoch(**one) for one in plain["epochs"])
    plain |= {"network": elth.Spec.parse(plain["network"]), "shape": DataShape(**plain["shape"])}
    return Round(**plain)


class Chains:
    """Rounds of IMP, and each of their masks with other first weights, in a folder of their own.

    Args:
        given: the arguments of the command.
        recipe: how all are trained.
        data: on the device to train on.
        ends: when to stop, by ``time.monotonic``.
    """

    def __init__(
        self,
        given: argparse.Namespace,
        recipe: elth.Recipe,
        data: elth.Dataset,
        ends: float,
    ) -> None:
        """Make the folder, or refuse one of other arguments."""
        self.given, self.recipe, self.data, self.ends = given, recipe, data, ends
        given.out.mkdir(parents=True, exist_ok=True)
        said = {name: getattr(given, name) for name in ("network", "seed", "rate")}
        said |= {"recipe": recipe.plain(), "dataset": data.info.identity()}
        said = json.loads(json.dumps(said))
        what = given.out / "arguments.json"
        if what.exists() and json.loads(what.read_text(encoding="utf-8")) != said:
            raise SystemExit(f"{given.out} holds trainings of other arguments: see {what}")
        what.write_text(json.dumps(said, indent=1), encoding="utf-8")

    def rounds(self) -> Iterator[Round]:
        """The rounds of IMP from the dense one on: those that were written, then new ones."""
        last = None
        for number in range(self.given.rounds + 1):
            if not (path := self._path("imp", number)).exists():
                break
            yield (last := _round(_read(path, self.given.device)))
        if last is not None and last.number == self.given.rounds:
            return
        found = elth.imp(
            self.given.network,
            self.data,
            self.recipe,
            seed=self.given.seed,
            rate=self.given.rate,
            rounds=self.given.rounds,
            noise="round",
            start=last,
            compile=self.given.compile,
        )
        while True:
            self._look_at_the_clock()
            begun = time.monotonic()
            if (new := next(found, None)) is None:
                return
            self._tell("imp", new.number, new.accuracy, begun)
            _write(new, self._path("imp", new.number))
            yield new

    def anew(self, of: Round) -> Trained:
        """A round's mask, trained from the weights that are drawn anew for all rounds alike."""
        if (path := self._path("reinit", of.number)).exists():
            return Trained(**_read(path, "cpu"))
        self._look_at_the_clock()
        begun = time.monotonic()
        ticket = of.ticket
        ticket = dataclasses.replace(
            ticket, rewind=reinit(ticket.network, ticket.shape, self.given.seed)
        )
        training = elth.train_ticket(
            ticket, self.data, self.recipe, start=0, compile=self.given.compile
        )
        *_, last = training
        made = Trained(last.test_accuracy, _on_cpu(of.mask), _on_cpu(training.state()))
        self._tell("reinit", of.number, made.accuracy, begun)
        _write(made, path)
        return made

    def _path(self, method: str, number: int) -> Path:
        return Path(self.given.out) / f"{method}_{number:02}.pt"

    def _look_at_the_clock(self) -> None:
        if time.monotonic() >= self.ends:
            raise _TimeUpError

    @staticmethod
    def _tell(method: str, number: int, accuracy: float, begun: float) -> None:
        took = time.monotonic() - begun
        print(f"{method} round {number}: {accuracy:.2f} % in {took:.1f} s", flush=True)


def measured(
    chains: dict[str, list[Trained]],
    first: dict[str, State],
    evaluator: analysis.Evaluator,
    points: int,
) -> list[dict[str, Any]]:
    """What stands in the figures, a row a round; what needs the next round is None in the last.

    Args:
        chains: trained rounds by method, from the dense one on.
        first: the weights that each method's rounds begin with.
        evaluator: says the error on the training images.
        points: on a path from a round to the next.
    """
    rows: list[dict[str, Any]] = []
    for method, rounds in chains.items():
        near = analysis.distance_matrices(
            [r.state for r in rounds], [r.mask for r in rounds], initial=first[method]
        )
        for number, found in enumerate(rounds):
            row = {
                "method": method,
                "round": number,
                "remaining": 100 - 100 * masks.sparsity(found.mask),
                "accuracy": found.accuracy,
                "d(k, first weights)": near.of(number, len(rounds)).angular,
                "d(k, k+1)": None,
                "barrier": None,
            }
            if number + 1 < len(rounds):
                row["d(k, k+1)"] = near.of(number, number + 1).angular
                path = analysis.along(
                    found.state, rounds[number + 1].state, analysis.abscissae(points), evaluator
                )
                curve = analysis.Curve(tuple(path))
                row["barrier"] = curve.barriers()["train_error"].worse
            rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, measure what is there, print and write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stability", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the dataset")
    parser.add_argument("--out", type=Path, required=True, help="folder of the trainings")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--network", default="resnet20(bn_affine=false,shortcut=pad)")
    parser.add_argument("--recipe", default="maene_resnet20")
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--stretch", type=float, default=1, help="of the recipe's length, as 0.1")
    parser.add_argument("--rate", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=24, help="prunings")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--points", type=int, default=20, help="on a path")
    parser.add_argument("--images", type=int, help="training images of a path; all by default")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="then measure and end")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    ends = time.monotonic() + 60 * given.minutes
    data = elth.load_dataset(given.dataset, given.data).to(given.device)
    recipe = dataclasses.replace(elth.RECIPES[given.recipe], batch_size=given.batch_size)
    recipe = recipe.stretched(given.stretch)
    chains: dict[str, list[Trained]] = {"imp": [], "reinit": []}
    first: dict[str, State] = {}
    made = Chains(given, recipe, data, ends)
    try:
        for found in made.rounds():
            first.setdefault("imp", _on_cpu(found.rewind))
            chains["imp"].append(
                Trained(found.accuracy, _on_cpu(found.mask), _on_cpu(found.trained))
            )
            chains["reinit"].append(made.anew(found))
    except _TimeUpError:
        print("the minutes are over: the same command goes on", flush=True)
    if not chains["reinit"]:
        return
    first["reinit"] = reinit(elth.Spec.parse(given.network), data.info.shape, given.seed)
    evaluator = analysis.Evaluator(given.network, data, recipe, on=("train",), images=given.images)
    rows = measured(chains, first, evaluator, given.points)
    found_on = {"machine": machine(given.device), "rounds": rows}
    (given.out / "stability.json").write_text(json.dumps(found_on, indent=1), encoding="utf-8")
    table = Table(*rows[0])
    for row in rows:
        cells = ("" if cell is None else cell for cell in row.values())
        table.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
