"""Named streams: golden draws, and what they depend on."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from elth.errors import ElthError
from elth.streams import COMMON, Noise, stream

GOLDEN_SEED = 7_993_439_213_634_424_234
GOLDEN_ORDER = [3, 4, 6, 5, 2, 7, 0, 1]
GOLDEN_CROP = [3, 1, 8, 0, 5, 8, 5, 1]
GOLDEN_UNIFORM = [0.41246039, 0.8554461, 0.17478532]


def test_golden_draws() -> None:
    """Stored results name their draws by seed and purpose, so these must never change."""
    assert stream(0, "init").initial_seed() == GOLDEN_SEED
    assert torch.randperm(8, generator=stream(0, "order", 3)).tolist() == GOLDEN_ORDER
    assert torch.randint(0, 9, (8,), generator=stream(1, "crop")).tolist() == GOLDEN_CROP
    found = torch.rand(3, generator=stream(2, "init"))
    torch.testing.assert_close(found, torch.tensor(GOLDEN_UNIFORM), rtol=1e-6, atol=0)


def test_the_seed_of_a_stream_by_hand() -> None:
    digest = hashlib.sha256(b"elth/7/crop/12").digest()
    expected = int.from_bytes(digest[:8], "little") // 2
    assert stream(7, "crop", 12).initial_seed() == expected


def test_seeds_purposes_and_epochs_are_independent() -> None:
    draws = {
        (seed, purpose, epoch): tuple(
            torch.randint(0, 2**31, (4,), generator=stream(seed, purpose, epoch)).tolist()
        )
        for seed, purpose, epoch in itertools.product(
            (-1, 0, 1, 11), ("init", "order", "crop", "flip"), (0, 1, 10)
        )
    }
    assert len(set(draws.values())) == len(draws) == 48


def test_a_draw_does_not_depend_on_those_before() -> None:
    fresh = torch.rand(4, generator=stream(0, "order", 5))
    torch.rand(100, generator=stream(0, "crop", 5))
    torch.rand(100, generator=stream(0, "order", 4))
    torch.manual_seed(0)
    assert torch.equal(torch.rand(4, generator=stream(0, "order", 5)), fresh)


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    torch.rand(4, generator=stream(0, "init"))
    assert torch.equal(torch.get_rng_state(), before)


def test_epoch_zero_is_the_default() -> None:
    assert stream(4, "init").initial_seed() == stream(4, "init", 0).initial_seed()


# Noise.


def test_the_streams_of_a_noise_by_hand() -> None:
    """Stored results name their draws so: these never change either."""
    for noise, suffix in (
        (Noise(), ""),
        (Noise(round=3), " of round 3"),
        (Noise(copy=2), " of copy 2"),
        (Noise(3, 1), " of round 3 of copy 1"),
    ):
        digest = hashlib.sha256(f"elth/7/crop{suffix}/12".encode()).digest()
        expected = int.from_bytes(digest[:8], "little") // 2
        assert stream(7, "crop", 12, noise).initial_seed() == expected


def test_every_noise_has_streams_of_its_own() -> None:
    noises = [Noise(round, copy) for round in range(12) for copy in range(12)]
    assert len({stream(0, "order", 0, noise).initial_seed() for noise in noises}) == 144


@pytest.mark.parametrize(
    ("noise", "plain"),
    [
        (Noise(), {}),
        (Noise(round=3), {"round": 3}),
        (Noise(copy=1), {"copy": 1}),
        (Noise(3, 1), {"round": 3, "copy": 1}),
    ],
)
def test_a_noise_as_plain_values(noise: Noise, plain: dict[str, int]) -> None:
    assert noise.plain() == plain
    assert Noise.of(plain) == noise
    assert (noise == COMMON) is (plain == {})


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"round": -1}, "round of a noise must be a whole number of at least 0, found -1"),
        ({"copy": True}, "copy of a noise must be a whole number of at least 0, found True"),
        ({"copy": 1.0}, "copy of a noise must be a whole number of at least 0, found 1.0"),
        ({"copies": 1}, "unknown field of a noise 'copies'; did you mean 'copy'?"),
    ],
)
def test_what_is_no_noise(plain: dict[str, Any], message: str) -> None:
    with pytest.raises(ElthError, match=message):
        Noise.of(plain)


def test_a_noise_is_known_without_torch() -> None:
    code = "import sys, elth.streams; print(elth.streams.Noise(1).plain(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{'round': 1} False\n"


@pytest.mark.parametrize("seed", [0.0, True, "0", None], ids=repr)
def test_a_seed_is_a_whole_number(seed: Any) -> None:
    """0.0 would be another name, and other draws."""
    with pytest.raises(ElthError, match=f"a seed is a whole number, as 0; found {seed!r}"):
        stream(seed, "init")
    counted: Any = np.int64(3)
    assert stream(counted, "init").initial_seed() == stream(3, "init").initial_seed()
