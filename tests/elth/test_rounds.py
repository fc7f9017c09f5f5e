"""Iterative magnitude pruning as a notebook calls it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import elth
from elth import masks
from elth.controls import reinit
from elth.counts import kept_at
from elth.data import Dataset
from elth.errors import ElthError
from elth.networks import Anatomy, build
from elth.recipes import Recipe, Step
from elth.repulsion import Repulsion
from elth.rounds import Round, imp, prune_and_rewind
from elth.streams import Noise, stream
from elth.tickets import Ticket, state_digest
from elth.training import Epoch, Training

SMALL = "resnet14(width=2)"
QUICK = Recipe(length=Step(12, "it"), rewind=Step(4, "it"), batch_size=32)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return elth.load_dataset("digits")


@pytest.fixture(scope="module")
def rounds(digits: Dataset) -> list[Round]:
    return list(imp(SMALL, digits, QUICK, seed=3, rate=0.5, rounds=2))


def _same(a: Round, b: Round) -> bool:
    return (
        a.number == b.number
        and masks.digest(a.mask) == masks.digest(b.mask)
        and state_digest(a.rewind) == state_digest(b.rewind)
        and state_digest(a.trained) == state_digest(b.trained)
        and a.epochs == b.epochs
    )


def test_the_rounds_are_dense_pruned_and_rewound(digits: Dataset, rounds: list[Round]) -> None:
    total = masks.total(rounds[0].mask)
    assert [one.number for one in rounds] == [0, 1, 2]
    assert [one.nonzeros for one in rounds] == [total, total // 2, total // 2 // 2]
    assert rounds[0].sparsity == 0
    assert len({state_digest(one.rewind) for one in rounds}) == 1
    for before, after in itertools.pairwise(rounds):
        kept = {n: before.trained[n].abs()[m] for n, m in after.mask.items()}
        gone = {n: before.trained[n].abs()[before.mask[n] & ~m] for n, m in after.mask.items()}
        assert min(float(t.min()) for t in kept.values() if len(t)) >= max(
            float(t.max()) for t in gone.values() if len(t)
        )
        assert all(not after.trained[n][~m].any() for n, m in after.mask.items())
    for one in rounds:
        assert one.accuracy == one.epochs[-1].test_accuracy
        assert one.epochs[-1].step == 12
        assert repr(one).startswith(f"<Round {one.number} of {SMALL}: {one.nonzeros:,} of ")
    assert repr(rounds[0]).endswith(f" 0.00 % sparse, accuracy {rounds[0].accuracy:.2f} %>")
    # The rewind point is four iterations of the initial weights of the seed.
    network = elth.build_network(SMALL, digits, seed=3)
    state = network.state_dict()
    training = Training(network, digits, QUICK, seed=3, state=state, stop=4)
    for _ in training:
        pass
    assert state_digest(training.state()) == state_digest(rounds[0].rewind)


def test_a_ticket_trains_as_its_round_did(
    digits: Dataset, rounds: list[Round], tmp_path: Path
) -> None:
    rounds[2].ticket.save(tmp_path / "t.safetensors")
    ticket = Ticket.load(tmp_path / "t.safetensors")
    assert ticket.origin["history"] == [{"imp_round": 2}]
    last = elth.train_ticket(ticket, digits, QUICK).run(on_epoch=lambda _: None)
    assert last == rounds[2].epochs[-1]


def test_it_goes_on_from_a_round_or_its_ticket(
    digits: Dataset, rounds: list[Round], tmp_path: Path
) -> None:
    given: dict[str, Any] = {"seed": 3, "rate": 0.5, "rounds": 2}
    (after,) = imp(SMALL, digits, QUICK, **given, start=rounds[1])
    assert _same(after, rounds[2])
    rounds[1].ticket.save(tmp_path / "t.safetensors")
    ticket = Ticket.load(tmp_path / "t.safetensors")
    again, after = imp(SMALL, digits, QUICK, **given, start=ticket)
    assert _same(again, rounds[1])
    assert _same(after, rounds[2])
    assert list(imp(SMALL, digits, QUICK, **given, start=rounds[2])) == []


def test_a_start_of_other_arguments_is_refused(digits: Dataset, rounds: list[Round]) -> None:
    given: dict[str, Any] = {"seed": 3, "rounds": 2, "start": rounds[1]}
    ticket = rounds[1].ticket
    for changes, message in (
        ({"network": "resnet20(width=2)"}, r"is a round of resnet14\(width=2\), and the network"),
        ({"seed": 4}, r"start is a round of another seed \(3, here 4\): go on with its own seed"),
        ({"recipe": "digits_resnet"}, "start is a round of another recipe .* its own recipe"),
        ({"rounds": 0}, "start is a round after 1 prunings, and rounds is 0: ask for more than 1"),
        (
            {"start": dataclasses.replace(ticket, origin={**ticket.origin, "history": []})},
            "must be a round of imp or its ticket, and this ticket is another one's",
        ),
    ):
        every: dict[str, Any] = {"network": SMALL, "recipe": QUICK, **given, **changes}
        with pytest.raises(ElthError, match=message):
            imp(every.pop("network"), digits, every.pop("recipe"), **every)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rounds": -1}, "rounds must be a whole number of at least 0, found -1"),
        ({"rounds": 1.5}, "rounds must be a whole number of at least 0, found 1.5"),
        ({"rate": 1}, "rate must lie between 0 and 1, as 0.2; found 1"),
        ({"recipe": "digit_resnet"}, "unknown recipe 'digit_resnet'; did you mean 'digits_resnet'"),
        ({"network": "resnet15"}, "unknown network 'resnet15'; did you mean"),
        (
            {"network": nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(10))},
            "Sequential has no weight to prune: expected a convolution or a",
        ),
        (
            {"network": "mlp2", "rounds": 40, "rate": 0.5},
            r"round 40 of mlp2 would keep 0 weights, and 1,000 in head.weight are never pruned: "
            r"round 7 is the last that keeps as many \(1,095\), where each prunes 0.5 of what is",
        ),
    ],
)
def test_what_cannot_be_is_refused_at_once(
    digits: Dataset, changes: dict[str, Any], message: str
) -> None:
    given = {"network": SMALL, "recipe": QUICK, **changes}
    with pytest.raises(ElthError, match=message):
        imp(given.pop("network"), digits, given.pop("recipe"), **given)


def test_every_epoch_is_told(digits: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[int, Epoch]] = []
    recipe = dataclasses.replace(QUICK, batch_size=700, length=Step(2, "ep"), rewind=Step(1, "ep"))
    found = list(
        imp(
            SMALL,
            digits,
            recipe,
            rounds=1,
            on_epoch=lambda number, epoch: told.append((number, epoch)),
            verbose=True,
        )
    )
    assert [(number, epoch.step) for number, epoch in told] == [(0, 2), (0, 4), (1, 4)]
    assert [epoch for _, epoch in told[1:]] == [e for one in found for e in one.epochs]
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"round {number}, {epoch}" for number, epoch in told]
    assert lines[0].startswith("round 0, epoch 1 (iteration 2, rate 0.1): loss ")


# A module of PyTorch -----------------------------------------------------------------------------


def test_a_module_of_torchvision_goes_through() -> None:
    data = elth.load_dataset("digits(channels=3)")
    torch.manual_seed(5)
    module = torchvision.models.resnet18(num_classes=10)
    before = state_digest(module.state_dict())
    found = list(imp(module, data, QUICK, rate=0.5, rounds=1))
    assert state_digest(module.state_dict()) == before
    assert module.training
    weights = {n for n, p in module.named_parameters() if p.dim() > 1}
    assert set(found[1].mask) == weights
    assert found[1].nonzeros == masks.total(found[1].mask) // 2
    assert repr(found[1]).startswith("<Round 1 of a module: 5,")
    with pytest.raises(
        ElthError, match="was given as a module: take mask and rewind .* as module:function of a"
    ):
        found[1].ticket  # noqa: B018
    (again,) = imp(module, data, QUICK, rate=0.5, rounds=1, start=found[0])
    assert _same(again, found[1])
    other = torchvision.models.resnet34(num_classes=10)
    with pytest.raises(ElthError, match="start is a round of another network or shape of data"):
        imp(other, data, QUICK, rate=0.5, rounds=1, start=found[0])


def test_a_module_of_our_own_goes_as_its_name_does(digits: Dataset, rounds: list[Round]) -> None:
    module = elth.build_network(SMALL, digits, seed=3)
    found = list(imp(module, digits, QUICK, seed=3, rate=0.5, rounds=2))
    assert all(_same(a, b) for a, b in zip(found, rounds, strict=True))


def test_what_an_anatomy_leaves_whole_stays(digits: Dataset) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(64, 8), nn.Linear(8, 10)
            self.anatomy = Anatomy(family="two", stages=(), unpruned=("last.weight",))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.last(self.first(x.flatten(1)).relu())
            return logits

    _, pruned = imp(Two(), digits, QUICK, rate=0.5, rounds=1)
    assert bool(pruned.mask["last.weight"].all())
    assert pruned.nonzeros == (64 * 8 + 80) // 2


# The step ----------------------------------------------------------------------------------------


def test_the_step_prunes_the_least_and_rewinds() -> None:
    trained = {"a": torch.tensor([1.0, -4.0, 0.0]), "b": torch.tensor([2.0, 3.0])}
    mask = {"a": torch.tensor([True, True, False]), "b": torch.tensor([True, True])}
    rewind = {"a": torch.full((3,), 7.0), "b": torch.full((2,), 8.0)}
    found, start = prune_and_rewind(trained, mask, rewind, rate=0.5)
    assert {n: m.tolist() for n, m in found.items()} == {
        "a": [False, True, False],
        "b": [False, True],
    }
    assert start is rewind
    found, _ = prune_and_rewind(trained, mask, rewind, keep=3, unpruned=["b"])
    assert found["a"].tolist() == [False, True, False]
    either: list[dict[str, Any]] = [{}, {"keep": 1, "rate": 0.5}]
    for given in either:
        with pytest.raises(ElthError, match="say how many .* keeps: either keep or rate"):
            prune_and_rewind(trained, mask, rewind, **given)


# Ways of pruning ---------------------------------------------------------------------------------

TINY = "mlp1(width=12)"
SHORT = Recipe(
    length=Step(3, "ep"),
    rewind=Step(2, "it"),
    batch_size=200,
    lr=0.2,
    milestones=(Step(2, "ep"),),
)
"""Seven iterations an epoch, three epochs, the last at a tenth of the learning rate."""


@pytest.fixture(scope="module")
def chain(digits: Dataset) -> Any:
    """Chains of two prunings, each trained once, by what differs in them."""

    @functools.cache
    def found(**given: Any) -> list[Round]:
        given = {"recipe": SHORT, "rate": 0.3, "rounds": 2, **given}
        return list(imp(TINY, digits, given.pop("recipe"), **given))

    return found


def _cosine(first: Round, second: Round) -> float:
    """Of the weights that both keep."""
    vectors = [
        torch.cat([(one.trained[n] * m * first.mask[n]).flatten() for n, m in second.mask.items()])
        for one in (first, second)
    ]
    return float(vectors[0] @ vectors[1] / (vectors[0].norm() * vectors[1].norm()))


def test_learning_rate_rewinding(chain: Any) -> None:
    plain, kept = chain(), chain(weights="trained")
    assert _same(plain[0], kept[0])
    assert plain[0].origin == kept[0].origin
    assert masks.digest(plain[1].mask) == masks.digest(kept[1].mask)
    for before, after in itertools.pairwise(kept):
        assert state_digest(after.rewind) == state_digest(before.trained)
        assert after.epochs != plain[after.number].epochs
        assert [(e.step, e.lr) for e in after.epochs] == [(7, 0.2), (14, 0.2), (21, 0.1 * 0.2)]
        assert after.epochs[0].test_loss < plain[after.number].epochs[0].test_loss
    assert kept[1].origin["way"] == {"weights": "trained"}


def test_fine_tuning_is_at_the_last_learning_rate(chain: Any) -> None:
    plain, tuned = chain(), chain(weights="finetune", finetune="10it")
    assert _same(plain[0], tuned[0])
    for before, after in itertools.pairwise(tuned):
        assert state_digest(after.rewind) == state_digest(before.trained)
        found = [(e.epoch, e.step, e.lr) for e in after.epochs]
        assert found == [(4, 28, 0.1 * 0.2), (5, 31, 0.1 * 0.2)]


def test_pruning_back_to_initialisation(digits: Dataset, chain: Any) -> None:
    plain, back = chain(), chain(weights="init")
    assert _same(plain[0], back[0])
    initial = state_digest(elth.build_network(TINY, digits).state_dict())
    assert {state_digest(one.rewind) for one in back[1:]} == {initial}
    assert initial != state_digest(back[0].rewind)
    network, state, mask = elth.build_network(TINY, digits), back[1].rewind, back[1].mask
    training = Training(network, digits, SHORT, seed=0, state=state, mask=mask)
    assert tuple(training) == back[1].epochs


def test_one_shot_is_a_round_that_prunes_to_the_sparsity(digits: Dataset) -> None:
    _, shot = imp(SMALL, digits, QUICK, rate=0.9, rounds=1)
    assert shot.nonzeros == kept_at(0.9, masks.total(shot.mask))


def test_rounds_with_a_noise_of_their_own(digits: Dataset, chain: Any) -> None:
    plain, fresh = chain(), chain(noise="round")
    assert _same(plain[0], fresh[0])
    assert masks.digest(plain[1].mask) == masks.digest(fresh[1].mask)
    assert state_digest(plain[1].rewind) == state_digest(fresh[1].rewind)
    assert plain[1].epochs != fresh[1].epochs
    for number, one in enumerate(fresh):
        training = Training(
            elth.build_network(TINY, digits),
            digits,
            SHORT,
            seed=0,
            state=one.rewind,
            mask=one.mask,
            start=2,
            noise=Noise(round=number),
        )
        assert tuple(training) == one.epochs


def test_repelled_rounds_move_away_from_those_before(chain: Any) -> None:
    adam = dataclasses.replace(
        SHORT, optimiser="adam", lr=0.03, length=Step(12, "ep"), schedule="constant", milestones=()
    )
    given = {"recipe": adam, "rounds": 3}
    plain, repelled, drawn = (
        chain(**given),
        chain(**given, repel=2.0),
        chain(**given, repel=-1.0),
    )
    assert _same(plain[0], repelled[0])
    assert plain[0].origin == repelled[0].origin
    assert repelled[0].epochs[-1].repulsion is None
    for one in repelled[1:]:
        found = [epoch.repulsion or 0 for epoch in one.epochs]
        assert found[-1] < 0.05 < 0.2 < found[0]
        assert [state_digest(o) for o in one.optima] == [
            state_digest(before.trained) for before in repelled[: one.number]
        ]
        for number, before in enumerate(repelled[: one.number]):
            assert abs(_cosine(before, one)) < 0.15, "orthogonal, or nearly so"
            assert 0.35 < _cosine(plain[number], plain[one.number]) < 0.9
            assert _cosine(drawn[number], drawn[one.number]) > 0.95


def test_no_strength_is_plain_pruning(chain: Any) -> None:
    plain, none = chain(), chain(repel=0.0)
    assert all(_same(a, b) and a.origin == b.origin for a, b in zip(plain, none, strict=True))
    assert none[2].optima == ()


def test_the_previous_round_alone_is_all_of_them_at_first(chain: Any) -> None:
    every, previous = chain(repel=2.0), chain(repel=2.0, repel_from="previous")
    assert all(_same(every[number], previous[number]) for number in (0, 1))
    assert not _same(every[2], previous[2])
    assert [len(one.optima) for one in every] == [0, 1, 2]
    assert [len(one.optima) for one in previous] == [0, 1, 1]
    assert state_digest(previous[2].optima[0]) == state_digest(previous[1].trained)


WAYS: list[dict[str, Any]] = [
    {"weights": "trained"},
    {"weights": "init"},
    {"weights": "finetune", "finetune": "1ep"},
    {"noise": "round"},
    {"repel": 2.0},
    {"repel": 2.0, "repel_from": "previous"},
    {"repel": -1.0, "weights": "trained", "noise": "round"},
]


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_way_goes_on_from_any_of_its_rounds(
    way: dict[str, Any], digits: Dataset, chain: Any, tmp_path: Path
) -> None:
    whole = chain(**way)
    given: dict[str, Any] = {"rate": 0.3, "rounds": 2, **way}
    (last,) = imp(TINY, digits, SHORT, **given, start=whole[1])
    assert _same(last, whole[2])
    assert last.origin == whole[2].origin
    # Round 0 is that of any way.
    first = next(imp(TINY, digits, SHORT, **given, start=chain()[0]))
    assert _same(first, whole[1])
    whole[1].ticket.save(tmp_path / "t.safetensors")
    ticket = Ticket.load(tmp_path / "t.safetensors")
    if "repel" in way:
        with pytest.raises(ElthError, match="the earlier rounds that it is repelled from are not"):
            imp(TINY, digits, SHORT, **given, start=ticket)
    else:
        again, last = imp(TINY, digits, SHORT, **given, start=ticket)
        assert _same(again, whole[1])
        assert _same(last, whole[2])
    with pytest.raises(ElthError, match=r"start is a round of another way .*here plain rewinding"):
        imp(TINY, digits, SHORT, rate=0.3, rounds=2, start=whole[1])


def test_trained_weights_are_no_start(digits: Dataset, rounds: list[Round]) -> None:
    for one in rounds[:2]:
        ticket = one.ticket
        origin = {**ticket.origin, "weights": "trained", "start": 12}
        trained = dataclasses.replace(ticket, rewind=one.trained, origin=origin)
        with pytest.raises(ElthError, match="weights that it had after its training, and not tho"):
            imp(SMALL, digits, QUICK, seed=3, rate=0.5, rounds=2, start=trained)


def test_a_ticket_that_does_not_tell_its_way_is_known_by_what_it_trained(
    digits: Dataset, chain: Any
) -> None:
    """As tickets did that were exported before."""

    def silent(**way: Any) -> Ticket:
        found: Ticket = chain(**way)[1].ticket
        origin = {name: value for name, value in found.origin.items() if name != "way"}
        return dataclasses.replace(found, origin=origin)

    given: dict[str, Any] = {"rate": 0.3, "rounds": 2}
    with pytest.raises(ElthError, match="trained from iteration 0 to .* goes from 2 to"):
        imp(TINY, digits, SHORT, **given, start=silent(weights="init"))
    with pytest.raises(ElthError, match="here plain rewinding"):
        imp(TINY, digits, SHORT, **given, start=silent(noise="round"))
    again, _ = imp(TINY, digits, SHORT, **given, start=silent(noise="round"), noise="round")
    assert _same(again, chain(noise="round")[1])


def test_a_repelled_ticket_is_not_trained_without_what_repels_it(
    digits: Dataset, chain: Any
) -> None:
    repelled = chain(repel=2.0)
    with pytest.raises(ElthError, match="was repelled from earlier ones, which are not in it"):
        elth.train_ticket(repelled[2].ticket, digits, SHORT)
    assert elth.train_ticket(repelled[0].ticket, digits, SHORT).step == 2
    assert elth.train_ticket(repelled[2].ticket, digits, SHORT, repulsion=Repulsion(0)).step == 2


def test_a_fine_tuning_belongs_to_its_recipe(digits: Dataset, chain: Any) -> None:
    ticket = chain(weights="finetune", finetune="1ep")[1].ticket
    longer = dataclasses.replace(SHORT, length=Step(9, "ep"))
    with pytest.raises(ElthError, match="by its own recipe, which ends after .*: take its own, or"):
        elth.train_ticket(ticket, digits, longer)
    assert elth.train_ticket(ticket, digits, longer, start=2).step == 2


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_ticket_of_a_way_trains_as_its_round_did(
    way: dict[str, Any], digits: Dataset, chain: Any
) -> None:
    one = chain(**way)[2]
    repulsion = Repulsion(way["repel"], one.optima) if "repel" in way else None
    training = elth.train_ticket(one.ticket, digits, SHORT, repulsion=repulsion)
    assert tuple(training) == one.epochs
    assert state_digest(training.state()) == state_digest(one.trained)


def test_a_control_repels_its_own_rounds(digits: Dataset, chain: Any) -> None:
    """Fresh weights, the same for all rounds, under the masks of a repelled chain."""
    rounds = chain(repel=2.0)
    fresh = reinit(rounds[0].ticket.network, digits.info.shape, 0)

    def control(optima: list[dict[str, torch.Tensor]], one: Round) -> Training:
        ticket = dataclasses.replace(one.ticket, rewind=fresh)
        return elth.train_ticket(ticket, digits, SHORT, repulsion=Repulsion(2, optima))

    optima: list[dict[str, torch.Tensor]] = []
    for one in rounds:
        training = control(optima, one)
        epochs = list(training)
        assert (epochs[-1].repulsion is None) is (not optima)
        if optima:
            assert epochs != list(control([], one)), "its rounds are no longer independent"
        optima.append(training.state())
    assert len({state_digest(optimum) for optimum in optima}) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "rewound"}, "unknown weights of a pruning 'rewound'; did you mean 'rewind'"),
        ({"weights": "finetune"}, "weights: finetune needs a length .* found none"),
        ({"finetune": "1ep"}, r"finetune \(1ep\) is how long .* these are weights: rewind"),
        ({"weights": "finetune", "finetune": "1 epoch"}, "cannot read the step '1 epoch'"),
        (
            {"weights": "finetune", "finetune": "1ep", "recipe": "maene_conv4"},
            "next to 0 where the schedule is cosine",
        ),
        ({"repel": float("nan")}, "strength of a repulsion must be a finite number"),
        ({"repel": 1, "repel_from": "last"}, "unknown repel_from of a pruning 'last'"),
        ({"repel_from": "previous"}, "repel_from is previous, and nothing repels: give a stren"),
        ({"noise": "fresh"}, r"unknown noise of a pruning 'fresh' \(there is: common, round\)"),
    ],
)
def test_a_way_that_is_none_is_refused_at_once(
    digits: Dataset, changes: dict[str, Any], message: str
) -> None:
    given = {"recipe": SHORT, **changes}
    with pytest.raises(ElthError, match=message):
        imp(TINY, digits, given.pop("recipe"), **given)


# What a notebook calls besides -------------------------------------------------------------------


def test_a_network_is_built_of_its_seed_or_a_generator(digits: Dataset) -> None:
    shape = digits.info.shape
    by_seed = state_digest(elth.build_network(SMALL, digits, seed=3).state_dict())
    assert by_seed == state_digest(build(SMALL, shape, 3).state_dict())
    generator = stream(3, "init")
    assert by_seed == state_digest(build(SMALL, shape, generator=generator).state_dict())
    assert by_seed != state_digest(elth.build_network(SMALL, shape).state_dict())


def test_a_training_runs_to_its_end(
    digits: Dataset, rounds: list[Round], capsys: pytest.CaptureFixture[str]
) -> None:
    training = elth.train_ticket(rounds[1].ticket, digits, QUICK)
    last = training.run()
    assert last == rounds[1].epochs[-1]
    assert capsys.readouterr().out == f"{last}\n"
    assert str(last) == (
        f"epoch 1 (iteration 12, rate 0.1): loss {last.train_loss:.4f}, on the test set "
        f"{last.test_loss:.4f}, accuracy {last.test_accuracy:.2f} %"
    )
    with pytest.raises(ElthError, match="this training is at its end, iteration 12: nothing is le"):
        training.run()


def test_a_recipe_of_a_name(digits: Dataset, rounds: list[Round]) -> None:
    assert (
        elth.train_ticket(rounds[1].ticket, digits, "digits_resnet", start=4).recipe
        == (elth.RECIPES["digits_resnet"])
    )
    with pytest.raises(ElthError, match=r"unknown recipe 'digits'; did you mean 'digits_resnet'\?"):
        elth.train_ticket(rounds[1].ticket, digits, "digits")


class _Gives(nn.Module):
    """A network that gives something of ten logits."""

    def __init__(self, made: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        self.made = made

    def forward(self, x: Tensor) -> object:
        return self.made(self.head(x))


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (
            _Gives(lambda y: (y, y)),
            "_Gives gives tuple for an image of 1x8x8, 10 classes",
        ),
        (_Gives(lambda y: y[:, :7]), r"_Gives gives \(1, 7\) for an image of 1x8x8, 10 classes"),
        (nn.Conv2d(3, 8, 3), "Conv2d cannot take an image of 1x8x8, 10 classes: RuntimeError: Giv"),
        (_Gives(lambda y: y).half(), "of _Gives is in torch.float16; expected float32, of which"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(10)), r"show the module an image first, as mod"),
        (_Gives, "expected the name of a network, as .*; found <class '.*_Gives'>"),
    ],
)
def test_a_module_that_cannot_be_trained_is_refused_before_anything_is_computed(
    network: Any, told: str, digits: Dataset
) -> None:
    with pytest.raises(ElthError, match=told):
        imp(network, digits, "digits_resnet")
    with pytest.raises(ElthError, match=told):
        elth.train_sparse(network, digits, "digits_resnet", method="set", sparsity=0.5)
