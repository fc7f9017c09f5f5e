"""What a YAML file may say: every refusal is one line that says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from elth.recipes import RECIPES, Recipe, Step
from orchestrator.experiment.methods import METHODS, SOURCE
from orchestrator.experiment.pruning import Stop
from orchestrator.experiment.reading import load
from orchestrator.experiment.sections import Cell, Experiment
from tests.orchestrator.experiment.helpers import BASE, refusal
from tests.orchestrator.helpers import QUICK, experiment, write_yaml


def test_the_smallest_file(path: Path) -> None:
    found = load(path)
    assert found.name == "exp"
    assert found.seeds == (0,)
    assert found.recipe == RECIPES["digits_resnet"]
    assert (found.pruning.rate, found.pruning.rounds) == (0.2, 13)
    assert (found.resources.cpus, found.resources.gpus, found.resources.concurrent) == (1, 0, None)
    assert (found.data.root, found.data.download) == (Path("data"), False)


@pytest.mark.parametrize(
    ("stem", "name"), [("a b.c", "a-b-c"), ("mnist_mlp", "mnist_mlp"), ("Run-2", "Run-2")]
)
def test_a_grid_is_named_after_its_file(tmp_path: Path, stem: str, name: str) -> None:
    assert load(write_yaml(tmp_path / f"{stem}.yaml", BASE)).name == name


STOPS = "collapsed, or {accuracy_below: 12} for a test accuracy in percent"

TOP = (
    "name, description, plugins, paper, dataset, seeds, recipe, recipes, pruning, criteria, "
    "variants, tickets, grid, analyses, claims, margin, data, resources"
)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sede=1", f"unknown key 'sede'; did you mean 'seeds'? (there is: {TOP})"),
        ("grid.0={metod: imp, network: mlp2}", "unknown key 'grid.0.metod'; did you mean 'method'"),
        ("pruning.rat=0.1", "unknown key 'pruning.rat'; did you mean 'rate'? (there is: rate, rou"),
        ("resources.cpu=1", "unknown key 'resources.cpu'; did you mean 'cpus'? (there is: cpus, g"),
        ("data.path=x", "unknown key 'data.path' (there is: root, download)"),
        (
            "pruning.stop={acuracy_below: 12}",
            "unknown key 'pruning.stop.acuracy_below'; did you mean 'accuracy_below'? (there is: "
            "collapsed, accuracy_below)",
        ),
        (
            "grid.0.netwrk=mlp2",
            "unknown key 'grid.0.netwrk'; did you mean 'network'? "
            "(there is: method, network, dataset, source, source_dataset, transform, round, "
            "sparsity, variant, noise, ticket, keep)",
        ),
        ("recipe.lenght=2ep", "unknown key 'recipe.lenght'; did you mean 'length'? (there is: len"),
        ("recipe.bse=x", "unknown key 'recipe.bse'; did you mean 'base'? (there is: "),
        (
            "recipes={digits: {base: mnist_mlp, lenght: 2ep}}",
            "unknown key 'recipes.digits.lenght'; did you mean 'length'? (there is: length, ",
        ),
        (
            "paper={title: x, layuot: by_source}",
            "unknown key 'paper.layuot'; did you mean 'layout'? "
            "(there is: title, round, layout, note, printed)",
        ),
        (
            "paper={title: x, printed: [{method: imp, network: mlp2, accuracy: 9, sourc: mlp1}]}",
            "unknown key 'paper.printed.0.sourc'; did you mean 'source'? (there is: network, meth",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(
    path: Path, override: str, message: str
) -> None:
    assert refusal(path, override).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grid.0.network=resnet21", "in grid.0.network: unknown network 'resnet21'; did you mean"),
        (
            "grid.0.network=resnet14(widht=4)",
            "in grid.0.network: unknown option of network resnet14 'widht'; did you mean 'width'?",
        ),
        (
            "grid.0.network=resnet14(width=x)",
            "in grid.0.network: option width of network resnet14 is 'x'; expected a value like 16",
        ),
        (
            "grid.0.method=impp",
            "in grid.0: unknown method 'impp'; did you mean 'imp'? "
            f"(there is: {', '.join(METHODS)})",
        ),
        ("dataset=digit", "in dataset: unknown dataset 'digit'; did you mean 'digits'? (there is:"),
        (
            "recipe=digits_resne",
            "in recipe: unknown recipe 'digits_resne'; did you mean 'digits_resnet'? (there is: ",
        ),
        ("recipe.base=mnist", "in recipe: unknown recipe 'mnist'; did you mean 'mnist_mlp'?"),
        ("recipe={base: [1]}", "in recipe: unknown recipe '[1]' (there is: "),
        ("recipes={digit: mnist_mlp}", "in recipes: unknown dataset 'digit'; did you mean 'digits"),
        ("recipes={mnist: mnist_mp}", "in recipes.mnist: unknown recipe 'mnist_mp'; did you mean"),
        ("grid.0.dataset=digit", "in grid.0.dataset: unknown dataset 'digit'; did you mean 'digit"),
        (
            "grid.0.dataset=digits(sise=16)",
            "in grid.0.dataset: unknown option of dataset digits 'sise'; did you mean 'size'?",
        ),
        (
            "paper={title: x, printed: [{method: imp, network: resnet21, accuracy: 9}]}",
            "in paper.printed.0.network: unknown network 'resnet21'; did you mean 'resnet",
        ),
        ("criteria={snp: {}}", "in criteria: unknown criterion 'snp'; did you mean 'snip'?"),
        (
            "criteria={snip: {sample: 3}}",
            "in criteria: unknown setting of criterion snip 'sample'; did you mean 'samples'? "
            "(there is: samples, mode)",
        ),
        (
            "criteria={snip: {mode: trian}}",
            "in criteria: unknown setting mode of criterion snip 'trian'; did you mean 'train'?",
        ),
    ],
)
def test_an_unknown_word_is_refused_with_the_nearest(
    path: Path, override: str, message: str
) -> None:
    assert refusal(path, override).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pruning.rate=0", "pruning.rate: input should be greater than 0, found 0"),
        ("pruning.rate=1", "pruning.rate: input should be less than 1, found 1"),
        ("pruning.rate=.nan", "pruning.rate: input should be "),
        ("pruning.rounds=0", "pruning.rounds: input should be greater than or equal to 1, found 0"),
        ("pruning.rounds=1.5", "pruning.rounds: input should be a valid integer, found 1.5"),
        ("resources.cpus=0", "resources.cpus: input should be greater than or equal to 1, found 0"),
        ("resources.gpus=2", "resources.gpus: input should be less than or equal to 1, found 2"),
        ("resources.gpus=-1", "resources.gpus: input should be greater than or equal to 0, found"),
        ("resources.concurrent=0", "resources.concurrent: input should be greater than or equal"),
        (
            "resources={workers: 2, gpus: 0.5}",
            "in resources: workers: 2 with gpus: 0.5 would put two workers of a trial on one GPU, "
            "which NCCL refuses: write gpus: 1 for one GPU each (or 0 for none), or workers: 1",
        ),
        ("recipe.lr=-1", "in recipe: lr of a recipe must be greater than 0, is -1.0"),
        ("recipe.lr=.nan", "in recipe: lr of a recipe must be greater than 0, is nan"),
        ("recipe.lr=abc", "recipe.lr: input should be a valid number, found 'abc'"),
        ("recipe.momentum=1", "in recipe: momentum of a recipe must be at least 0 and below 1, is"),
        ("recipe.batch_size=0", "in recipe: batch_size of a recipe must be at least 1, is 0"),
        ("recipe.optimiser=sdg", "in recipe: optimiser of a recipe must be one of sgd, adam, is"),
        ("recipe.length=20", "in recipe.length: cannot read the step 20: write epochs as 160ep or"),
        ("recipe.milestones=[1]", "in recipe.milestones.0: cannot read the step 1: write epochs"),
        (
            "recipe.rewind=30ep",
            "in recipe: rewind of a recipe must come before its end: rewind is 30ep, length 20ep",
        ),
        ("recipe={lr: 0.1}", "key 'recipe.length' is missing"),
        ("recipe=3", "in recipe: a recipe is a name or a mapping, found 3"),
        ("recipe=", "in recipe: a recipe is a name or a mapping, found None"),
        ("seeds=[]", "seeds: list should have at least 1 item after validation, not 0, found ()"),
        ("seeds=[0,0]", "in seeds: seeds must be different whole numbers from 0 on, found [0, 0]"),
        ("seeds=-1", "in seeds: seeds must be different whole numbers from 0 on, found [-1]"),
        ("seeds=a", "seeds.0: input should be a valid integer, found 'a'"),
        ("seeds=[0.5]", "seeds.0: input should be a valid integer, found 0.5"),
        ("grid=[]", "grid: list should have at least 1 item after validation, not 0, found []"),
        ("grid={method: imp}", "grid: input should be a valid list, found {'method': 'imp'}"),
        ("grid.0=3", "grid.0: expected a mapping of keys to values, found 3"),
        ("grid.0.method=[]", "grid.0.method: list should have at least 1 item"),
        ("grid.0.network=[]", "grid.0.network: list should have at least 1 item"),
        ("grid.0={method: imp}", "key 'grid.0.network' is missing"),
        ("grid.0.round=al", "grid.0.round.0: input should be a valid integer, found 'al'"),
        (
            "grid.0.sparsity=1",
            "in grid.0: sparsity is a fraction between 0 and 1, as 0.9; found 1.",
        ),
        (
            "grid.0.sparsity=0",
            "in grid.0: sparsity is a fraction between 0 and 1, as 0.9; found 0.",
        ),
        ("grid.0.sparsity=.nan", "in grid.0: sparsity is a fraction between 0 and 1, as 0.9; fou"),
        ("grid.0.sparsity=[0.9, 90]", "in grid.0: sparsity is a fraction between 0 and 1, as 0.9;"),
        ("grid.0.sparsity=a", "grid.0.sparsity.0: input should be a valid number, found 'a'"),
        (
            "criteria={snip: {samples: -1}}",
            "in criteria: setting samples of criterion snip must be at least 0, is -1",
        ),
        (
            "criteria={grasp: {temperature: hot}}",
            "in criteria: setting temperature of criterion grasp is 'hot'; expected a value like",
        ),
        (
            "criteria={snip: {at: start}}",
            "in criteria: at of criterion snip is rewind or init, found 'start'",
        ),
        ("criteria={snip: 3}", "criteria.snip: input should be a valid dictionary, found 3"),
        ("recipes=[digits]", "recipes: input should be a valid dictionary, found ['digits']"),
        ("paper=3", "paper: expected a mapping of keys to values, found 3"),
        ("paper={note: x}", "key 'paper.title' is missing"),
        (
            "paper={title: x, round: 0}",
            "paper.round: input should be greater than or equal to 1, found 0",
        ),
        (
            "paper={title: x, round: all}",
            "paper.round: input should be a valid integer, found 'al",
        ),
        (
            "paper={title: x, layout: by_sorce}",
            "in paper.layout: unknown layout 'by_sorce'; did you mean 'by_source'?",
        ),
        *(
            (f"pruning.stop={given}", f"in pruning.stop: expected {STOPS}; found {found}")
            for given, found in (
                ("12", "12"),
                ("colapsed", "'colapsed'"),
                ("[collapsed]", "['collapsed']"),
                ("true", "True"),
                ("{}", "neither"),
                ("{collapsed: false}", "neither"),
            )
        ),
        *(
            (
                f"pruning.stop.accuracy_below={given}",
                f"pruning.stop.accuracy_below: input should be {why}",
            )
            for given, why in (
                ("0", "greater than 0, found 0"),
                (".nan", "less than or equal to 100, found nan"),
                (".inf", "less than or equal to 100, found inf"),
                ("101", "less than or equal to 100, found 101"),
                ("true", "a valid number, found True"),
                ("'12'", "a valid number, found '12'"),
            )
        ),
        ("pruning=3", "pruning: expected a mapping of keys to values, found 3"),
        ("dataset=3", "dataset: input should be a valid string, found 3"),
        ("name=a/b", "name: string should match pattern '^[A-Za-z0-9][A-Za-z0-9_-]*$', found 'a/b"),
    ],
)
def test_a_value_out_of_its_range_is_refused(path: Path, override: str, message: str) -> None:
    assert refusal(path, override).startswith(f"{path}: {message}")


@pytest.mark.parametrize("gpus", [0, 1])
def test_several_workers_take_whole_gpus(path: Path, gpus: int) -> None:
    found = load(path, ["resources.workers=2", f"resources.gpus={gpus}"]).resources
    assert (found.workers, found.gpus) == (2, gpus)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"method": "imp", "round": 14},
            "round 14 of method imp is beyond the last one: pruning.ro",
        ),
        ({"method": "imp", "round": [1, -1]}, "in grid.0: round counts prunings from 1; the dense"),
        ({"method": "imp", "round": 0}, "in grid.0: round counts prunings from 1; the dense netwo"),
        ({"method": "dense", "round": 3}, "in grid.0: method dense takes no round; it is round 0"),
        ({"method": "imp", "source": "mlp2"}, "in grid.0: method imp takes no source: the network"),
        (
            {"method": "ett"},
            "in grid.0: method ett needs source: the network on which the ticket w",
        ),
        ({"method": "imp", "transform": "append"}, "in grid.0: method imp takes no transform; onl"),
        ({"method": ["ett", "imp"], "source": "resnet20"}, "in grid.0: method imp takes no source"),
        ({"method": "ett", "source": "resnet21"}, "in grid.0.source: unknown network 'resnet21'; "),
        (
            {"method": "imp", "source_dataset": "digits"},
            "in grid.0: method imp takes no source_dataset; only ett does",
        ),
        ({"method": "dense", "round": "all"}, "in grid.0: method dense takes no round; it is rou"),
        ({"method": "dense", "sparsity": 0.9}, "in grid.0: method dense takes no round; it is ro"),
        *(
            (
                {"method": method},
                f"in grid.0: method {method} needs source: the network on which the ticket was fo",
            )
            if m.base == SOURCE
            else (
                {"method": method, "source": "resnet20"},
                f"in grid.0: method {method} takes no source: the network on which the ticket was",
            )
            for method, m in METHODS.items()
        ),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(
    tmp_path: Path, entry: dict[str, Any], message: str
) -> None:
    grid = [{"network": "resnet14", **entry}]
    path = write_yaml(tmp_path / "exp.yaml", {**BASE, "grid": grid})
    assert refusal(path).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "PATH is empty; an experiment needs at least dataset, seeds and grid"),
        (b"# a comment\n", "PATH is empty; an experiment needs at least dataset, seeds and grid"),
        (b"a: [\n", "PATH is no valid YAML at line 2, column 1: expected the node content, but"),
        (b"a: b: c\n", "PATH is no valid YAML at line 1, column 5: mapping values are not allowed"),
        (b"- a\n", "PATH must hold a mapping of keys to values, found a list"),
        (b"words\n", "PATH must hold a mapping of keys to values, found a str"),
        (
            b"1: 2\n" + yaml.safe_dump(BASE).encode(),
            "PATH, line 1: keys should be strings, found",
        ),
        (
            b"\xff\xfea",
            "PATH is no text in UTF-8 (invalid start byte at byte 0): let your editor save",
        ),
        (b"a: \x00", "PATH is no valid YAML: unacceptable character #x0000"),
        (b"!!python/name:os.system {}\n", "PATH, line 1: the tag"),
        (b"name: 2001-13-45\n", "PATH, line 1: 2001-13-45 is a date to YAML"),
        (b"seeds: 0\n", "PATH: key 'dataset' is missing"),
    ],
)
def test_a_file_that_holds_no_experiment_is_refused(
    tmp_path: Path, text: bytes, message: str
) -> None:
    path = tmp_path / "exp.yaml"
    path.write_bytes(text)
    assert refusal(path).startswith(message.replace("PATH", str(path)))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    assert refusal(missing) == f"cannot read {missing}: No such file or directory"
    assert refusal(tmp_path) == f"cannot read {tmp_path}: Is a directory"


@pytest.mark.parametrize("number", ["1e-4", "1.0e-4", "0.0001", ".0001", "1E-4"])
def test_numbers_without_a_point_are_numbers(path: Path, number: str) -> None:
    assert load(path, [f"recipe.weight_decay={number}"]).recipe.weight_decay == 1e-4


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("mnist_mlp", RECIPES["mnist_mlp"]),
        ({"base": "mnist_mlp"}, RECIPES["mnist_mlp"]),
        (
            {"base": "mnist_mlp", "length": "2ep", "lr": 1},
            Recipe.of({**RECIPES["mnist_mlp"].full(), "length": "2ep", "lr": 1.0}),
        ),
        (
            {"length": "8ep", "rewind": "10it", "milestones": ["2ep", "40it"], "augment": "none"},
            Recipe(
                length=Step(8, "ep"),
                rewind=Step(10, "it"),
                milestones=(Step(2, "ep"), Step(40, "it")),
            ),
        ),
        (RECIPES["cifar10_resnet"].full(), RECIPES["cifar10_resnet"]),
        ({"base": "cifar10_resnet", "stretch": 1}, RECIPES["cifar10_resnet"]),
        (
            {"base": "cifar10_resnet", "stretch": 0.5},
            Recipe.of(
                {
                    **RECIPES["cifar10_resnet"].full(),
                    "length": "80ep",
                    "milestones": ["40ep", "60ep"],
                }
            ),
        ),
        (  # fields that are given are stretched as well
            {"base": "mnist_mlp", "length": "2ep", "warmup": "10it", "stretch": 5},
            Recipe.of({**RECIPES["mnist_mlp"].full(), "length": "10ep", "warmup": "50it"}),
        ),
    ],
)
def test_a_recipe_is_a_name_a_base_with_changes_or_its_fields(
    tmp_path: Path, written: Any, expected: Recipe
) -> None:
    path = write_yaml(tmp_path / "exp.yaml", {**BASE, "recipe": written})
    assert load(path).recipe == expected


def test_networks_are_written_one_way(path: Path) -> None:
    found = load(path, ["grid.0.network=[' resnet14( width = 4 )', 'resnet14(width=16)']"])
    assert found.grid[0].network == ("resnet14(width=4)", "resnet14")


def test_the_resolved_text_loads_as_an_equal_experiment(path: Path, tmp_path: Path) -> None:
    grid = (
        "[{method: [dense, reinit], network: mlp2}, {method: ett, source: [resnet14, resnet20], "
        "network: resnet32, transform: [append, '0 1 | drop | auto'], round: [1, 2]}]"
    )
    found = load(path, [f"grid={grid}", "recipe.lr=1e-4", "description='Maß: 20 %'", "seeds=[2,0]"])
    again = tmp_path / "another-name.yaml"
    again.write_text(found.resolved(), encoding="utf-8")
    assert load(again) == found
    assert load(again).resolved() == found.resolved()
    assert list(load(again).cells()) == list(found.cells())


def test_the_resolved_text_states_every_default(path: Path) -> None:
    plain = yaml.safe_load(load(path).resolved())
    assert plain["pruning"] == {"rate": 0.2, "rounds": 13}
    assert plain["recipe"] == RECIPES["digits_resnet"].full()
    idle = {"plugins", "variants", "tickets", "analyses", "claims", "margin"}
    assert set(plain) == set(Experiment.model_fields) - {"paper", *idle}
    plain = yaml.safe_load(load(path, ["paper.title=x"]).resolved())
    assert set(plain) == set(Experiment.model_fields) - idle
    assert plain["paper"] == {"title": "x"}
    plain = yaml.safe_load(load(path, ["paper={title: x, round: 6}"]).resolved())
    assert plain["paper"] == {"title": "x", "round": 6}


@pytest.mark.parametrize(
    ("given", "stop", "plain"),
    [
        ("collapsed", Stop(collapsed=True), "collapsed"),
        ("{accuracy_below: 12}", Stop(accuracy_below=12), {"accuracy_below": 12}),
        (
            "{collapsed: true, accuracy_below: 12.5}",
            Stop(collapsed=True, accuracy_below=12.5),
            {"collapsed": True, "accuracy_below": 12.5},
        ),
        ("null", None, None),
    ],
)
def test_what_ends_a_chain_is_a_word_or_a_bound(
    path: Path, tmp_path: Path, given: str, stop: Stop | None, plain: object
) -> None:
    found = load(path, [f"pruning.stop={given}"])
    assert found.pruning.stop == stop
    assert yaml.safe_load(found.resolved())["pruning"].get("stop") == plain
    again = tmp_path / "again.yaml"
    again.write_text(found.resolved(), encoding="utf-8")
    assert load(again) == load(again, ["seeds=[0]"]) == found
    assert load(again, ["pruning.stop=null"]) == load(path)


def test_an_experiment_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        experiment().__setattr__("name", "other")


def _cell(method: str, network: str = "resnet20", **axes: Any) -> Cell:
    return Cell(**{"method": method, "network": network, "dataset": "cifar10", **axes})


def test_cells_are_products_in_the_order_of_the_file() -> None:
    grid = [
        {"method": "imp", "network": ["resnet14", "resnet20"]},
        {
            "method": "ett",
            "source": ["resnet14", "resnet32"],
            "network": "resnet20",
            "transform": ["auto", "identity"],
            "round": [2, 1],
        },
        {"method": ["dense", "random"], "network": "resnet20"},
    ]
    found = experiment(pruning={"rounds": 2}, grid=grid, seeds=[5, 7])
    sources = [("resnet14", "auto"), ("resnet14", "identity"), ("resnet32", "auto")]
    assert list(found.cells()) == [
        *(_cell("imp", n, round=k) for n in ("resnet14", "resnet20") for k in (1, 2)),
        *(
            _cell("ett", source=s, source_dataset="cifar10", transform=t, round=k)
            for s, t in [*sources, ("resnet32", "identity")]
            for k in (2, 1)
        ),
        _cell("dense", round=0),
        _cell("random", round=2),
    ]


def test_rounds_left_out_are_all_for_imp_and_the_last_for_others() -> None:
    found = experiment(grid=[{"method": ["imp", "magnitude"], "network": "resnet14"}])
    rounds = [(cell.method, cell.round) for cell in found.cells()]
    assert rounds == [*(("imp", k) for k in range(1, 14)), ("magnitude", 13)]


def test_all_rounds_can_be_asked_of_every_method() -> None:
    grid = [{"method": ["imp", "snip"], "network": "resnet20", "round": "all"}]
    found = experiment(pruning={"rounds": 3}, grid=grid)
    rounds = [(cell.method, cell.round) for cell in found.cells()]
    assert rounds == [(method, k) for method in ("imp", "snip") for k in (1, 2, 3)]


@pytest.mark.parametrize(
    ("asked", "levels"),
    [
        ({"sparsity": 0.9}, [(0, "0.9")]),
        ({"sparsity": [0.95, 0.5]}, [(0, "0.95"), (0, "0.5")]),
        ({"sparsity": 0.98765432}, [(0, "0.98765432")]),
        ({"sparsity": 0.9, "round": 2}, [(2, ""), (0, "0.9")]),
        ({"sparsity": 0.9, "round": "all"}, [(1, ""), (2, ""), (3, ""), (0, "0.9")]),
        ({}, [(1, ""), (2, ""), (3, "")]),
    ],
    ids=str,
)
def test_an_exact_sparsity_is_a_level_of_its_own(
    asked: dict[str, Any], levels: list[tuple[int, str]]
) -> None:
    grid = [{"method": "imp", "network": "resnet20", **asked}]
    found = experiment(pruning={"rounds": 3}, grid=grid)
    assert [(cell.round, cell.target) for cell in found.cells()] == levels


def test_cells_of_several_datasets() -> None:
    grid = [
        {"method": "imp", "network": "resnet20", "dataset": ["svhn", "cifar10"], "round": 1},
        {
            "method": "ett",
            "source": "resnet14",
            "source_dataset": ["svhn", "cifar10"],
            "network": "resnet20",
            "dataset": "svhn",
            "round": 1,
        },
        {"method": "ett", "source": "resnet14", "network": "resnet20", "dataset": "svhn"},
    ]
    found = experiment(grid=grid, pruning={"rounds": 1})
    moved: dict[str, Any] = {"source": "resnet14", "transform": "auto", "round": 1}
    moved["dataset"] = "svhn"
    assert list(found.cells()) == [
        _cell("imp", dataset="svhn", round=1),
        _cell("imp", dataset="cifar10", round=1),
        _cell("ett", **moved, source_dataset="svhn"),
        _cell("ett", **moved, source_dataset="cifar10"),
        _cell("ett", **moved, source_dataset="cifar10"),  # left out: that of the experiment
    ]


def test_datasets_are_written_one_way(path: Path) -> None:
    found = load(
        path,
        [
            "dataset=digits( size = 16, channels=1 )",
            "grid.0={method: ett, source: mlp1, network: mlp1}",
            "grid.0.dataset=[digits(size=8), 'cifar10(channels=3,size=40)']",
            "grid.0.source_dataset=digits(size=8,channels=3)",
            "recipes={digits(size=8): mnist_mlp}",
            "paper={title: x, printed: [{network: mlp1, method: imp, accuracy: 9}]}",
            "paper.printed.0.dataset=digits(channels=1)",
            "paper.printed.0.source_dataset=digits(channels=1,size=9)",
        ],
    )
    assert found.dataset == "digits(size=16)"
    assert found.grid[0].dataset == ("digits", "cifar10(size=40)")
    assert found.grid[0].source_dataset == ("digits(channels=3)",)
    assert list(found.recipes) == ["digits"]
    assert found.paper is not None
    printed = found.paper.printed[0]
    assert (printed.dataset, printed.source_dataset) == ("digits", "digits(size=9)")


def test_a_dataset_may_have_a_recipe_of_its_own(path: Path) -> None:
    recipes = "recipes={mnist: {base: mnist_mlp, length: 3ep}, svhn: cifar10_resnet}"
    found = load(path, [recipes, "grid.0.dataset=[digits, mnist, svhn]"])
    assert found.recipe_for("digits") == found.recipe == RECIPES["digits_resnet"]
    assert found.recipe_for("svhn") == RECIPES["cifar10_resnet"]
    expected = {**RECIPES["mnist_mlp"].full(), "length": "3ep"}
    assert found.recipe_for("mnist").full() == expected


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ({"snip": {"samples": 256}}, {"snip": {"samples": 256}}),
        ({"snip": {"samples": 128, "mode": "eval"}}, {"snip": {}}),
        ({"grasp": {"temperature": 100}}, {"grasp": {"temperature": 100.0}}),
        ({"snip": {"at": "init", "mode": "train"}}, {"snip": {"mode": "train", "at": "init"}}),
        ({"snip": {"at": "rewind"}}, {"snip": {}}),
        (
            {"synflow": {"at": "init"}, "magnitude": {}},
            {"synflow": {"at": "init"}, "magnitude": {}},
        ),
    ],
    ids=str,
)
def test_of_the_settings_of_criteria_those_are_kept_that_are_not_the_default(
    written: dict[str, Any], kept: dict[str, Any]
) -> None:
    grid = [{"method": list(written), "network": "resnet20"}]
    assert experiment(criteria=written, grid=grid).criteria == kept


# What is meant for something that is not there


@pytest.mark.parametrize(
    "overrides",
    [
        ["recipes={digits: mnist_mlp}"],  # the experiment's own
        ["recipes={mnist: mnist_mlp}", "grid.0.dataset=mnist"],
        ["recipes={mnist: mnist_mlp}", "grid.0.dataset=[digits, 'mnist(size=28)']"],
        [
            "recipes={mnist: mnist_mlp}",
            "grid.0={method: ett, source: mlp1, source_dataset: mnist, network: mlp1}",
        ],
        # Not those of a later entry only.
        ["grid=[{method: imp, network: mlp1}, {method: snip, network: mlp1}]", "criteria.snip={}"],
        ["grid.0.method=[imp, snip]", "criteria.snip.samples=3"],
        [
            "grid.0={method: ett_snip_extra, source: resnet14, network: resnet20}",
            "criteria.snip.samples=3",
        ],
        ["grid.0.method=grasp_absolute", "criteria.grasp_absolute.batches=2"],
    ],
    ids=" ".join,
)
def test_settings_of_what_the_grid_holds_are_welcome(path: Path, overrides: list[str]) -> None:
    load(path, overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["recipes={mnist: mnist_mlp}"],
            "recipes names the dataset mnist, which the grid does not use (it uses: digits)",
        ),
        (
            [
                "recipes={svhn: cifar10_resnet, 'mnist(size=32)': mnist_mlp}",
                "grid.0={method: ett, source: mlp1, source_dataset: svhn, network: mlp1, "
                "dataset: mnist}",
            ],
            "recipes names the dataset mnist(size=32), which the grid does not use (it uses: "
            "digits, mnist, svhn)",
        ),
        (
            ["criteria.snip.samples=3"],
            "criteria has settings of snip, and no method of the grid uses it",
        ),
        (
            ["grid.0.method=[snip, magnitude]", "criteria={snip: {}, grasp: {batches: 2}}"],
            "criteria has settings of grasp, and no method of the grid uses it",
        ),
        (  # a method is not its absolute variant
            ["grid.0.method=grasp", "criteria.grasp_absolute.batches=2"],
            "criteria has settings of grasp_absolute, and no method of the grid uses it",
        ),
        (  # even at its defaults
            ["criteria.synflow.iterations=100"],
            "criteria has settings of synflow, and no method of the grid uses it",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings_of_what_the_grid_does_not_hold_are_refused(
    path: Path, overrides: list[str], message: str
) -> None:
    assert refusal(path, *overrides) == f"{path}: {message}"


# Any experiment


def _entries() -> st.SearchStrategy[dict[str, Any]]:
    network = st.sampled_from(["resnet14", "resnet20", "resnet32(width=4)"])
    networks = st.one_of(network, st.lists(network, min_size=1, max_size=3))
    dataset = st.sampled_from(["svhn", "cifar10", "digits(size=16)"])
    datasets = st.one_of(dataset, st.lists(dataset, min_size=1, max_size=2))
    common = {
        "round": st.one_of(
            st.just("all"), st.integers(1, 5), st.lists(st.integers(1, 5), min_size=1, max_size=3)
        ),
        "sparsity": st.floats(0.001, 0.999),
        "dataset": datasets,
    }
    moved = [name for name, method in METHODS.items() if method.base == SOURCE]
    plain = st.fixed_dictionaries(
        {"method": st.sampled_from([m for m in METHODS if m not in (*moved, "dense")])}
        | {"network": networks},
        optional=common,
    )
    ett = st.fixed_dictionaries(
        {"method": st.sampled_from(moved), "network": networks, "source": networks},
        optional={
            **common,
            "source_dataset": datasets,
            "transform": st.sampled_from(["auto", ["append", "drop"]]),
        },
    )
    return st.one_of(plain, ett)


@QUICK
@given(
    grid=st.lists(_entries(), min_size=1, max_size=4),
    seeds=st.sets(st.integers(0, 99), min_size=1, max_size=3),
    rate=st.floats(0.01, 0.99),
    lr=st.floats(1e-9, 1e9),
)
def test_any_experiment_survives_its_own_yaml(
    grid: list[dict[str, Any]], seeds: set[int], rate: float, lr: float
) -> None:
    found = experiment(
        grid=grid,
        seeds=sorted(seeds),
        pruning={"rate": rate, "rounds": 5},
        recipe={"base": "digits_resnet", "lr": lr},
    )
    again = Experiment.model_validate(yaml.safe_load(found.resolved()))
    assert again == found
    assert list(again.cells()) == list(found.cells())
