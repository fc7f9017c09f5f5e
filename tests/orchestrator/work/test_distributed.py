"""Groups of workers, without Ray: what they have in common before their first stage."""

from __future__ import annotations

import pytest
import torch

from elth.parallel import Group
from orchestrator.work.distributed import gpus_of


@pytest.mark.parametrize(
    ("names", "told"),
    [(("H", "H", "H"), "H"), (("H", "A", "H"), "A+H"), (("N" * 200, "A"), f"A+{'N' * 128}")],
)
def test_a_numerics_class_has_the_gpus_of_all_workers(
    names: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them tells the same, whichever is the first."""
    sent: list[bytes] = []

    def gather(self: Group, own: bytes) -> list[bytes]:
        sent.append(own)
        return [own]

    monkeypatch.setattr(Group, "gather", gather)
    for rank, name in enumerate(names):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        gpus_of(Group(rank, len(names), torch.device("cuda")))
    assert len({len(one) for one in sent}) == 1, "all send as much"
    monkeypatch.setattr(Group, "gather", lambda self, own: sent)
    assert gpus_of(Group(0, len(names), torch.device("cuda"))) == told
