"""imagededup on a folder: its perceptual hash within 10 bits, its default. Runs in its own environment."""

import json
import sys
import time

from imagededup.methods import PHash

if __name__ == "__main__":
    began = time.monotonic()
    found = PHash(verbose=False).find_duplicates(image_dir=sys.argv[1], max_distance_threshold=10)
    seconds = time.monotonic() - began
    pairs = {tuple(sorted((name, other))) for name, others in found.items() for other in others}
    print(json.dumps({"seconds": seconds, "pairs": sorted(pairs)}))
