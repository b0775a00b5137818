"""What the peers' programs share: their arguments and what they print. It runs in the peers' environments.

So nothing of this project is imported here, and nothing that a peer does not bring along itself.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable

# As in `load`: the peers are asked for the same work.
SYSTEM = "You judge requests. Answer as JSON with a reason and a verdict. Template A."
MODEL = "judge"
IN_FLIGHT = 64
TEMPERATURE = 0
MAX_TOKENS = 64


def arguments(description: str | None) -> argparse.Namespace:
    """The command line of a peer's program."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("count", type=int)
    parser.add_argument("cache_dir")
    return parser.parse_args()


def report(seconds: float, rows: Iterable[tuple[int, object, object]], count: int) -> None:
    """Compare each row (number, reason, unsafe) with what was to be answered, and print one line of JSON."""
    right, wrong = set(), 0
    for number, reason, unsafe in rows:
        if number in right or not 0 <= number < count or (reason, unsafe) != (f"item {number}", False):
            wrong += 1
        else:
            right.add(number)
    missing = max(0, count - len(right) - wrong)
    result = {"seconds": seconds, "right": len(right), "wrong": wrong, "missing": missing}
    print("\n" + json.dumps(result), flush=True)
