"""One company's records: a shop's policy, products, customers, orders, and the jobs its customers bring.

The retail domain of tau2-bench (Barres et al. 2025, arXiv:2506.07982), as `course data` fetched it. All people in it
are made up.
"""

import functools
import gzip
import json
from dataclasses import dataclass

from lib.sources.catalogue import path


@dataclass(frozen=True)
class Retail:
    """policy: text. products, users and orders by id. tasks: what customers want, each with the actions it needs.

    split: task ids under "train" and "test", tau2's own division.
    """

    policy: str
    products: dict[str, dict]
    users: dict[str, dict]
    orders: dict[str, dict]
    tasks: list[dict]
    split: dict[str, list[str]]


@functools.cache
def retail() -> Retail:
    """The shop's records, read once; do not change them. Raises CourseError if they have not been fetched."""
    package = "inspect-evals"
    with gzip.open(path(package, "db.json.gz"), "rt", encoding="utf-8") as file:
        records = json.load(file)
    tasks, split = (json.loads(path(package, f"{name}.json").read_text(encoding="utf-8")) for name in
                    ("tasks", "split_tasks"))  # fmt: skip
    policy = path(package, "policy.txt").read_text(encoding="utf-8")
    return Retail(policy, records["products"], records["users"], records["orders"], tasks, split)
