"""What is measured of the pipeline; `python -m benchmarks` measures all of it (docs/performance.md)."""
