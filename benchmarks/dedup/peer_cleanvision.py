"""cleanvision on a folder: what it calls duplicates, as it comes. Runs in an environment of its own."""

import json
import sys
import time
from itertools import combinations
from pathlib import Path

from cleanvision import Imagelab

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    began = time.monotonic()
    lab = Imagelab(data_path=str(folder))
    lab.find_issues({"exact_duplicates": {}, "near_duplicates": {}}, verbose=False)
    seconds = time.monotonic() - began
    sets = [s for kind in ("exact_duplicates", "near_duplicates") for s in lab.info[kind]["sets"]]
    pairs = [sorted(Path(p).name for p in pair) for found in sets for pair in combinations(found, 2)]
    print(json.dumps({"seconds": seconds, "pairs": pairs}))
