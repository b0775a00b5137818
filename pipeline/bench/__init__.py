"""HoliSafe-Bench: what models answer, judged and counted."""

from pipeline.bench.judging import Judge, Response, Verdict
from pipeline.bench.official import OfficialString
from pipeline.bench.refusal import RefusalJudge
from pipeline.bench.responses import JudgedFile, judge_file

__all__ = ["Judge", "JudgedFile", "OfficialString", "RefusalJudge", "Response", "Verdict", "judge_file"]
