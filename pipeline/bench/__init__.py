"""HoliSafe-Bench: what models answer, judged and counted."""

from pipeline.bench.judging import Judge, Response, Verdict

__all__ = ["Judge", "Response", "Verdict"]
