"""The process that holds llama.cpp. It is told what to do on stdin and lives as long as stdin is open.

Run as `python -m pipeline.engine._llama_child FD`: one line of JSON comes in on stdin, one line with the
address goes out on FD (llama.cpp writes its log to stdout and stderr). The operating system closes our
stdin when the parent dies, however it dies; then this process ends too.
"""

from __future__ import annotations

import json
import os
import sys
import threading

__all__ = ["main"]


def main() -> None:
    """Load the weights, serve, and wait for the end of stdin."""
    config = json.loads(sys.stdin.readline())
    # Loading takes seconds: watch from the start, or a parent that dies meanwhile leaves an orphan.
    watcher = threading.Thread(target=_wait_for_parent, daemon=True)
    watcher.start()

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = config["weights"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [config["api_key"]]
    params.cors_origins = ""
    params.ui = False
    params.endpoint_slots = False
    params.n_ctx = config["ctx_size"]
    params.n_gpu_layers = config["gpu_layers"]
    params.cpuparams.n_threads = config["threads"]
    params.cpuparams_batch.n_threads = config["threads"]
    # The same answer to the same request: one slot, and of earlier requests only what they share with this
    # one. What leaves the slot for another question is kept, bit for bit, until its question comes again.
    params.n_parallel = 1
    params.cache_prompt = True
    params.cache_ram_mib = 128
    params.cache_idle_slots = False
    params.fit_params = False
    # Weights are read, not mapped, and sorted for this processor: a quarter faster on two cores with AVX-512,
    # and a mapped file would lie in memory beside its sorted copy.
    params.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE
    params.no_extra_bufts = False
    server = xllamacpp.Server(params)
    with os.fdopen(int(sys.argv[1]), "w") as ready:
        ready.write(json.dumps({"address": server.listening_address}) + "\n")
    watcher.join()


def _wait_for_parent() -> None:
    # The raw descriptor: the buffered reader's lock would be held by this thread at exit.
    while os.read(0, 4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
