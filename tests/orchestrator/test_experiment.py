"""What a YAML file may say: every refusal is one line that says what to do."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from elth.errors import ElthError
from elth.recipes import RECIPES, Recipe, Step
from orchestrator.experiment import METHODS, Cell, Experiment, load
from tests.orchestrator.helpers import QUICK, experiment, write_yaml

BASE: dict[str, Any] = {
    "dataset": "digits",
    "seeds": [0],
    "recipe": "digits_resnet",
    "grid": [{"method": "imp", "network": "resnet14"}],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that holds a right experiment."""
    return write_yaml(tmp_path / "exp.yaml", BASE)


def _refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ElthError) as caught:
        load(path, overrides)
    text = str(caught.value)
    assert "\n" not in text
    assert "Traceback" not in text
    return text


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


TOP = "name, description, dataset, seeds, recipe, pruning, grid, data, resources"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sede=1", f"unknown key 'sede'; did you mean 'seeds'? (there is: {TOP})"),
        ("pruning.rat=0.1", "unknown key 'pruning.rat'; did you mean 'rate'? (there is: rate, rou"),
        ("resources.cpu=1", "unknown key 'resources.cpu'; did you mean 'cpus'? (there is: cpus, g"),
        ("data.path=x", "unknown key 'data.path' (there is: root, download)"),
        (
            "grid.0.netwrk=mlp2",
            "unknown key 'grid.0.netwrk'; did you mean 'network'? "
            "(there is: method, network, source, transform, round)",
        ),
        ("recipe.lenght=2ep", "unknown key 'recipe.lenght'; did you mean 'length'? (there is: len"),
        ("recipe.bse=x", "unknown key 'recipe.bse'; did you mean 'base'? (there is: "),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(
    path: Path, override: str, message: str
) -> None:
    assert _refusal(path, override).startswith(f"{path}: {message}")


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
            "in grid.0: unknown method 'impp'; did you mean 'imp'? (there is: dense, imp, ett, "
            "reinit, random, magnitude)",
        ),
        ("dataset=digit", "in dataset: unknown dataset 'digit'; did you mean 'digits'? (there is:"),
        (
            "recipe=digits_resne",
            "in recipe: unknown recipe 'digits_resne'; did you mean 'digits_resnet'? (there is: ",
        ),
        ("recipe.base=mnist", "in recipe: unknown recipe 'mnist'; did you mean 'mnist_mlp'?"),
        ("recipe={base: [1]}", "in recipe: unknown recipe '[1]' (there is: "),
    ],
)
def test_an_unknown_word_is_refused_with_the_nearest(
    path: Path, override: str, message: str
) -> None:
    assert _refusal(path, override).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pruning.rate=0", "pruning.rate: input should be greater than 0, found 0"),
        ("pruning.rate=1", "pruning.rate: input should be less than 1, found 1"),
        ("pruning.rate=.nan", "pruning.rate: input should be "),
        ("pruning.rounds=0", "pruning.rounds: input should be greater than or equal to 1, found 0"),
        ("pruning.rounds=1.5", "pruning.rounds: input should be a valid integer, got a number wit"),
        ("resources.cpus=0", "resources.cpus: input should be greater than or equal to 1, found 0"),
        ("resources.gpus=2", "resources.gpus: input should be less than or equal to 1, found 2"),
        ("resources.gpus=-1", "resources.gpus: input should be greater than or equal to 0, found"),
        ("resources.concurrent=0", "resources.concurrent: input should be greater than or equal"),
        ("recipe.lr=-1", "in recipe: lr of a recipe must be greater than 0, is -1.0"),
        ("recipe.lr=.nan", "in recipe: lr of a recipe must be greater than 0, is nan"),
        ("recipe.lr=abc", "recipe.lr: input should be a valid number, unable to parse string as a"),
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
        ("seeds=a", "seeds.0: input should be a valid integer, unable to parse string as an int"),
        ("seeds=[0.5]", "seeds.0: input should be a valid integer, got a number with a fractional"),
        ("grid=[]", "grid: list should have at least 1 item after validation, not 0, found []"),
        ("grid={method: imp}", "grid: input should be a valid list, found {'method': 'imp'}"),
        ("grid.0=3", "grid.0: expected a mapping of keys to values, found 3"),
        ("grid.0.method=[]", "grid.0.method: list should have at least 1 item"),
        ("grid.0.network=[]", "grid.0.network: list should have at least 1 item"),
        ("grid.0={method: imp}", "key 'grid.0.network' is missing"),
        ("pruning=3", "pruning: expected a mapping of keys to values, found 3"),
        ("dataset=3", "dataset: input should be a valid string, found 3"),
        ("name=a/b", "name: string should match pattern '^[A-Za-z0-9][A-Za-z0-9_-]*$', found 'a/b"),
    ],
)
def test_a_value_out_of_its_range_is_refused(path: Path, override: str, message: str) -> None:
    assert _refusal(path, override).startswith(f"{path}: {message}")


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
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(
    tmp_path: Path, entry: dict[str, Any], message: str
) -> None:
    grid = [{"network": "resnet14", **entry}]
    path = write_yaml(tmp_path / "exp.yaml", {**BASE, "grid": grid})
    assert _refusal(path).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "PATH is empty; an experiment needs at least dataset, seeds and grid"),
        (b"# a comment\n", "PATH is empty; an experiment needs at least dataset, seeds and grid"),
        (b"a: [\n", "PATH is no valid YAML at line 2, column 1: expected the node content, but"),
        (b"a: b: c\n", "PATH is no valid YAML at line 1, column 5: mapping values are not allowed"),
        (b"- a\n", "PATH must hold a mapping of keys to values, found a list"),
        (b"words\n", "PATH must hold a mapping of keys to values, found a str"),
        (b"1: 2\n" + yaml.safe_dump(BASE).encode(), "PATH: 1: keys should be strings, found 1"),
        (
            b"\xff\xfea",
            "PATH is no text in UTF-8: 'utf-8' codec can't decode byte 0xff in position",
        ),
        (b"a: \x00", "PATH is no valid YAML: unacceptable character #x0000"),
        (b"!!python/name:os.system {}\n", "PATH is no valid YAML at line 1, column 1: could not"),
        (b"name: 2001-13-45\n", "PATH is no valid YAML: month must be in 1..12"),
        (b"seeds: 0\n", "PATH: key 'dataset' is missing"),
    ],
)
def test_a_file_that_holds_no_experiment_is_refused(
    tmp_path: Path, text: bytes, message: str
) -> None:
    path = tmp_path / "exp.yaml"
    path.write_bytes(text)
    assert _refusal(path).startswith(message.replace("PATH", str(path)))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    assert _refusal(missing) == f"cannot read {missing}: No such file or directory"
    assert _refusal(tmp_path) == f"cannot read {tmp_path}: Is a directory"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("grid.0", "cannot read the override 'grid.0': write key=value, as seeds=[0,1]"),
        ("=3", "cannot read the override '=3': write key=value, as seeds=[0,1]"),
        ("seeds=[0", "the value of the override 'seeds=[0' is no valid YAML"),
        ("name=2001-13-45", "the value of the override 'name=2001-13-45' is no valid YAML"),
        ("seeds.0.x=3", "the override 'seeds.0.x=3' goes below '0', which is a single value"),
        ("dataset.x=3", "the override 'dataset.x=3' goes below 'dataset', which is a single value"),
        (
            "grid.1.method=imp",
            "the override 'grid.1.method=imp' names element '1' of a list of 1, counted from 0",
        ),
        (
            "grid.first.method=imp",
            "the override 'grid.first.method=imp' names element 'first' of a list of 1, counted "
            "from 0",
        ),
        ("seeds.-1=3", "the override 'seeds.-1=3' names element '-1' of a list of 1, counted from"),
    ],
)
def test_an_override_that_cannot_be_followed_is_refused(
    path: Path, override: str, message: str
) -> None:
    assert _refusal(path, override).startswith(message)


def test_overrides_of_nested_keys_and_of_list_items(path: Path) -> None:
    found = load(
        path,
        [
            "name=other",
            "seeds=[3, 1]",
            "pruning.rounds=10",
            "grid.0.network=[resnet14, resnet20]",
            "data={root: elsewhere, download: true}",
            "resources.concurrent=",
        ],
    )
    assert found.name == "other"
    assert found.seeds == (1, 3)
    assert found.pruning.rounds == 10
    assert found.grid[0].network == ("resnet14", "resnet20")
    assert (found.data.root, found.data.download) == (Path("elsewhere"), True)
    assert found.resources.concurrent is None
    assert load(path, ["seeds.0=5"]).seeds == (5,)
    assert load(path, ["grid.0={method: dense, network: mlp2}"]).grid[0].method == ("dense",)


def test_the_later_override_wins(path: Path) -> None:
    assert load(path, ["seeds=1", "seeds=2"]).seeds == (2,)


def test_an_override_of_a_field_turns_a_named_recipe_into_its_base(path: Path) -> None:
    found = load(path, ["recipe.lr=1e-4", "recipe.length=3ep"]).recipe
    expected = {**RECIPES["digits_resnet"].full(), "lr": 1e-4, "length": "3ep"}
    assert found.full() == expected


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
    assert set(plain) == set(Experiment.model_fields)


def test_an_experiment_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        experiment().__setattr__("name", "other")


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
        *(Cell("imp", n, "", "", k) for n in ("resnet14", "resnet20") for k in (1, 2)),
        *(
            Cell("ett", "resnet20", source, transform, k)
            for source, transform in [*sources, ("resnet32", "identity")]
            for k in (2, 1)
        ),
        Cell("dense", "resnet20", "", "", 0),
        Cell("random", "resnet20", "", "", 2),
    ]


def test_rounds_left_out_are_all_for_imp_and_the_last_for_others() -> None:
    found = experiment(grid=[{"method": ["imp", "magnitude"], "network": "resnet14"}])
    rounds = [(cell.method, cell.round) for cell in found.cells()]
    assert rounds == [*(("imp", k) for k in range(1, 14)), ("magnitude", 13)]


def _entries() -> st.SearchStrategy[dict[str, Any]]:
    network = st.sampled_from(["resnet14", "resnet20", "resnet32(width=4)"])
    networks = st.one_of(network, st.lists(network, min_size=1, max_size=3))
    rounds = st.one_of(st.integers(1, 5), st.lists(st.integers(1, 5), min_size=1, max_size=3))
    plain = st.fixed_dictionaries(
        {"method": st.sampled_from([m for m in METHODS if m not in ("ett", "dense")])}
        | {"network": networks},
        optional={"round": rounds},
    )
    ett = st.fixed_dictionaries(
        {"method": st.just("ett"), "network": networks, "source": networks},
        optional={"round": rounds, "transform": st.sampled_from(["auto", ["append", "drop"]])},
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
    assert Experiment.model_validate(yaml.safe_load(found.resolved())) == found


KEYS = [
    "name",
    "seeds",
    "seeds.0",
    "recipe",
    "recipe.lr",
    "recipe.length",
    "recipe.base",
    "pruning",
]
KEYS += ["grid", "grid.0", "grid.0.network", "grid.0.round", "data.root", "resources.gpus", "x.y"]


@settings(QUICK, max_examples=300)
@given(st.sampled_from(KEYS), st.text(alphabet="013[]{}:,-&*!'\"~?|>%@`. aep\n", max_size=12))
def test_no_override_ends_in_anything_but_a_refusal(key: str, value: str) -> None:
    path = Path(__file__).parents[2] / "tune_configs" / "quickstart.yaml"
    with contextlib.suppress(ElthError):
        load(path, [f"{key}={value}"])
