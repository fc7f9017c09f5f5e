"""What a person writes in YAML is what is read, or it is refused."""

from __future__ import annotations

import math
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from elth.errors import ElthError
from orchestrator.experiment import load
from orchestrator.experiment.notation import parse

FILE = """\
dataset: digits
seeds: [0]
recipe: {base: digits_resnet, length: 2ep}
pruning: {rounds: 2}
criteria: {}
grid:
  - method: imp
    network: resnet14
scales:
  smoke:
    pruning: {rounds: 1}
"""


def _load(folder: Path, text: str, *overrides: str) -> Any:
    path = folder / "exp.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, overrides)


def _refusal(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ElthError) as caught:
        _load(folder, text, *overrides)
    return str(caught.value).replace(str(folder / "exp.yaml"), "FILE")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("+1", 1),
        ("0", 0),
        ("0.10", 0.1),
        (".5", 0.5),
        ("1.", 1.0),
        ("1.5e+3", 1500.0),
        ("'010'", "010"),
        ('"1:30"', "1:30"),
        ("!!str 010", "010"),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("no", "no"),
        ("On", "On"),
        ("off", "off"),
        ("~", None),
        ("null", None),
        ("1.2.3", "1.2.3"),
        ("~/data", "~/data"),
        ("/a,b", "/a,b"),
        ("=", "="),
        ("2ep", "2ep"),
        ("resnet14(width=8, bn_affine=true)", "resnet14(width=8, bn_affine=true)"),
    ],
)
def test_what_is_read(text: str, value: Any) -> None:
    found = parse(f"a: {text}\n", "x.yaml").value["a"]
    assert found == value
    assert type(found) is type(value)


def test_numbers_that_are_not_finite() -> None:
    found = parse("[.inf, -.INF, .nan]", "x.yaml").value
    assert found[:2] == [math.inf, -math.inf]
    assert math.isnan(found[2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("010", "010 is 8 to YAML: write it as a decimal number, as 10, or as a text in quotes"),
        ("-010", "-010 is -8 to YAML"),
        ("1_0.0", "1_0.0 is 10.0 to YAML: write it as a decimal number, as 10.0, or"),
        ("1_000", "1_000 is 1000 to YAML: write it as a decimal number, as 1000, or"),
        ("0x10", "0x10 is 16 to YAML: write it as a decimal number, as 16, or"),
        ("0b11", "0b11 is 3 to YAML"),
        ("1:30", "1:30 is 90 to YAML: write it as a decimal number, as 90, or as a text in quotes"),
        ("1:30.5", "1:30.5 is 90.5 to YAML"),
        ("2026-01-05", "2026-01-05 is a date to YAML: write it as a text in quotes, as '2026-01"),
        ("2026-13-45", "2026-13-45 is a date to YAML"),
        ("2026-01-05 10:00:00", "2026-01-05 10:00:00 is a date to YAML"),
        ("!!int '0x10'", "0x10 is 16 to YAML"),
        ("!!float yes", "yes is no number that can be read"),
        ("9" * 5000, "9" * 40 + " is no number that can be read"),
        ("!!binary YQ==", "the tag !!binary has no meaning here"),
        ("!!set {a}", "the tag tag:yaml.org,2002:set has no meaning here"),
        ("!mine 3", "the tag !!!mine has no meaning here"),
        ("{1: 2}", "keys should be strings, found 1: put it in quotes"),
        ("{true: 2}", "keys should be strings, found true: put it in quotes"),
        ("{010: 2}", "010 is 8 to YAML"),
        ("{[a]: 2}", "a key must be a word"),
        (
            "[resnet14(width=8, init=normal)]",
            "a comma ends a text within [ ] and { }, and",
        ),
        ("{<<: 3}", "<< takes the keys of a mapping"),
    ],
)
def test_what_a_person_may_read_otherwise_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ElthError, match=re.escape(f"x.yaml, line 3: {message}")):
        parse(f"a: 1\nb: 2\nc: {text}\n", "x.yaml")
    with pytest.raises(ElthError, match=re.escape(f"the override: {message}")):
        parse(text, "the override", lined=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "the key 'a' stands twice, in lines 1 and 3; to YAML only the last"),
        ("x:\n  a: 1\n  a: 1\n", "the key 'a' stands twice, in lines 2 and 3"),
        ("- {lr: 0.1, lr: 0.01}\n", "the key 'lr' stands twice, in line 1"),
        ("a: 1\n'a': 2\n", "the key 'a' stands twice, in lines 1 and 2"),
        ("a: &x {k: 1}\nb:\n  <<: *x\n  <<: *x\n", "the key '<<' stands twice, in lines 3 and 4"),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_both_lines(text: str, message: str) -> None:
    with pytest.raises(ElthError, match=re.escape(f"x.yaml: {message}")):
        parse(text, "x.yaml")


def test_an_alias_is_a_copy_and_merged_keys_give_way() -> None:
    found = parse("a: &x {k: 1, l: [1]}\nb: {<<: *x, k: 2}\nc: *x\n", "x.yaml").value
    assert found == {"a": {"k": 1, "l": [1]}, "b": {"k": 2, "l": [1]}, "c": {"k": 1, "l": [1]}}
    found["c"]["l"].append(2)
    assert found["a"]["l"] == [1]
    several = parse("a: &x {k: 1}\nb: &y {k: 2, m: 3}\nc: {<<: [*x, *y]}\n", "x.yaml").value
    assert several["c"] == {"k": 1, "m": 3}


def test_what_would_take_all_memory_is_refused_at_once() -> None:
    bomb = "a0: &a0 [x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
    )
    with pytest.raises(ElthError, match="with its aliases there are over 100,000 values"):
        parse(bomb, "x.yaml")
    with pytest.raises(ElthError, match="line 1: an alias stands within what it stands for"):
        parse("a: &a [*a]", "x.yaml")
    with pytest.raises(ElthError, match="is nested too deep"):
        parse("[" * 5000, "x.yaml")


def test_windows_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    expected = _load(tmp_path, FILE)
    path = tmp_path / "exp.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + FILE.replace("\n", "\r\n").encode())
    assert load(path) == expected
    path.write_bytes(FILE.replace("seeds: [0]", "seeds: [010]").replace("\n", "\r\n").encode())
    with pytest.raises(ElthError, match="line 2: 010 is 8"):
        load(path)
    path.write_bytes(FILE.encode("utf-16"))
    with pytest.raises(ElthError, match="is no text in UTF-8 .*: let your editor save it as UTF-8"):
        load(path)


@pytest.mark.parametrize(
    ("line", "new", "message"),
    [
        (2, "seeds: [true]", "seeds.0: input should be a valid integer, found True (line 2)"),
        (
            2,
            "seeds: [1.0]",
            "seeds.0: input should be a valid integer, found 1.0: write 1 (line 2)",
        ),
        (2, "seeds: yes", "seeds.0: input should be a valid integer, found 'yes' (line 2)"),
        (
            2,
            "seeds: ['1']",
            "seeds.0: input should be a valid integer, found '1': write 1, without",
        ),
        (
            2,
            "seeds: [08]",
            "seeds.0: input should be a valid integer, found '08': write 8, without",
        ),
        (4, "pruning: {rounds: 2.0}", "pruning.rounds: input should be a valid integer, found 2.0"),
        (4, "pruning: {rounds: true}", "pruning.rounds: input should be a valid integer, found Tr"),
        (4, "pruning: {rate: true}", "pruning.rate: input should be a valid number, found True"),
        (3, "recipe: {base: digits_resnet, lr: true}", "recipe.lr: input should be a valid number"),
        (3, "recipe: {base: digits_resnet, batch_size: 8.0}", "recipe.batch_size: input should be"),
        (
            3,
            "recipe: {base: digits_resnet, momentum: 2}",
            "in recipe: momentum of a recipe must be",
        ),
        (
            5,
            "criteria: {snip: {samples: true}}",
            "in criteria: setting samples of criterion snip is",
        ),
        (
            8,
            "    network: {resnet14}",
            "grid.0.network.0: input should be a valid string, found {'r",
        ),
        (
            8,
            "    network: 14",
            "grid.0.network.0: input should be a valid string, found 14: put it",
        ),
        (8, "    network: [resnet14, resnet21]", "in grid.0.network: unknown network 'resnet21'"),
        (8, "    networks: resnet14", "unknown key 'grid.0.networks'; did you mean 'network'?"),
        (
            8,
            "    round: 1",
            "key 'grid.0.network' is missing",
        ),
        (
            2,
            "seeds: 0-3",
            "seeds.0: input should be a valid integer",
        ),
        (
            1,
            "dataset: ~",
            "dataset: input should be a valid string, found None, which is what YAML",
        ),
        (
            2,
            "seeds: [0]\nname: 2024",
            "name: input should be a valid string, found 2024: put it in",
        ),
        (
            2,
            "seeds: [0]\ndata: {root: ~}",
            "data.root: input is not a valid path for",
        ),
    ],
)
def test_a_value_of_another_kind_is_refused_with_its_line(
    tmp_path: Path, line: int, new: str, message: str
) -> None:
    lines = FILE.splitlines()
    lines[line - 1] = new
    found = _refusal(tmp_path, "\n".join(lines) + "\n")
    assert found.startswith(f"FILE: {message}")
    at = 7 if "missing" in message else line + new.count("\n")  # of the entry that lacks it
    assert found.endswith(f" (line {at})")


def test_lines_of_profiles_and_overrides(tmp_path: Path) -> None:
    found = _refusal(tmp_path, FILE.replace("rounds: 1}", "rounds: 1.0}"), "scale=smoke")
    assert found == (
        "FILE: pruning.rounds: input should be a valid integer, found 1.0: write 1 (line 11)"
    )
    found = _refusal(tmp_path, FILE, "pruning.rounds=1.0")
    assert found == "FILE: pruning.rounds: input should be a valid integer, found 1.0: write 1"
    found = _refusal(tmp_path, FILE, "grid.0.round=[0]")
    assert found.endswith("(line 7)")  # of the entry, which is from the file


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seeds=[010]", "the value of the override 'seeds=[010]': 010 is 8 to YAML: write it as a"),
        ("seeds=1_0", "the value of the override 'seeds=1_0': 1_0 is 10 to YAML"),
        ("seeds=[true]", "FILE: seeds.0: input should be a valid integer, found True"),
        ("seeds=1.0", "FILE: seeds.0: input should be a valid integer, found 1.0: write 1"),
        (
            "recipe={lr: 1, lr: 2}",
            "the value of the override 'recipe={lr: 1, lr: 2}': the key 'lr'",
        ),
        ("name=2024", "FILE: name: input should be a valid string, found 2024: put it in quotes"),
        ("name=1:30", "the value of the override 'name=1:30': 1:30 is 90 to YAML"),
    ],
)
def test_overrides_are_read_alike(tmp_path: Path, override: str, message: str) -> None:
    assert _refusal(tmp_path, FILE, override).startswith(message)


def test_words_and_exponents_as_people_write_them(tmp_path: Path) -> None:
    found = _load(tmp_path, FILE, "data.download=yes", "recipe.lr=1e-3", "pruning.rate=2E-1")
    assert (found.data.download, found.recipe.lr, found.pruning.rate) == (True, 0.001, 0.2)
    found = _load(tmp_path, FILE, "name=no", "resources.compile=off")
    assert (found.name, found.resources.compile) == ("no", False)


def test_a_dataset_with_two_recipes_is_refused(tmp_path: Path) -> None:
    found = _refusal(tmp_path, FILE, "recipes={digits: mnist_mlp, ' digits ': digits_resnet}")
    assert found == "FILE: in recipes: two recipes are for digits: keep one of them"


@pytest.mark.parametrize(
    "word", ["yes", "1e3", "010", "1_0", "1:30", "2026-01-05", "~", "a: b", ""]
)
def test_what_was_written_by_us_is_read_as_it_was_meant(tmp_path: Path, word: str) -> None:
    found = _load(tmp_path, FILE, f"description={yaml.safe_dump(word)}")
    again = _load(tmp_path, textwrap.dedent(found.resolved()))
    assert again == found
    assert again.description == word


def test_a_number_in_quotes(tmp_path: Path) -> None:
    assert _load(tmp_path, FILE, "pruning.rate='0.10'").pruning.rate == 0.1
    assert "found 'a tenth'" in _refusal(tmp_path, FILE, "pruning.rate=a tenth")
    found = _refusal(tmp_path, FILE, "grid.0.method=snip", "criteria={snip: {samples: '8'}}")
    assert "setting samples of criterion snip is '8'; expected a value like 128" in found
