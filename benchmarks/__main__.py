"""``make bench``: every measurement, or those that are named, as tables and as JSON.

These machines are noisy: read the ratios, which come from one run, with what they compare
interleaved. What needs data is left out where none is given.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.rows import Row, machine, show

PARTS = {
    "train": "an iteration of ours against the plain loop",
    "accuracy": "test accuracy of ours against the plain loop's",
    "cure": "strided 1x1 convolutions as a slice against themselves as they are",
    "packing": "several tickets on one device",
    "repulsion": "an iteration that is repelled from earlier optima",
    "workers": "two workers of one training, compiled against eager",
    "sparse": "an interval of RigL against one of a static mask",
    "input": "images of ImageNet's size",
    "orchestrator": "the system's own cost",
    "tracker": "one MLflow server with hundreds of workers (an hour)",
    "driver": "a driver with hundreds of trials",
    "claims": "claims with many stages on the boards",
    "storage": "bytes of a chain",
    "judgement": "words and intervals of a report against the truth",
}


def _rows(part: str, given: argparse.Namespace) -> list[Row]:
    module: Any = import_module(f"benchmarks.{part}")
    if part == "train":
        return list(module.rows(given.data, given.device))
    if part == "sparse":
        return list(module.rows(given.data, given.device))
    if part == "accuracy":
        if given.data is None:
            return [{"name": "all", "note": "left out, no --data was given"}]
        return list(module.rows(given.data, given.device))
    if part in ("cure", "workers"):
        return list(module.rows(given.data))
    if part in ("packing", "repulsion"):
        return list(module.rows(given.device))
    if part == "input":
        if given.images is None:
            return [{"name": "all", "note": "left out, no --images was given"}]
        return list(module.rows(given.images))
    return list(module.rows())


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all when none is named")
    parser.add_argument("--data", type=Path, help="folder with CIFAR-10 and MNIST")
    parser.add_argument("--images", type=Path, help="folder with train/CLASS/* and val/CLASS/*")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results.json"))
    given = parser.parse_args()
    unknown = set(given.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there is {', '.join(PARTS)}")
    results = {}
    for part in given.parts or PARTS:
        where = machine(given.device)
        rows = _rows(part, given)
        results[part] = {**where, "rows": rows}
        show(PARTS[part], rows, given.device)
        given.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {given.output}")


if __name__ == "__main__":
    main()
