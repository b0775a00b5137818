"""Any dataset in HoliSafe's format as one table: ours, a `holisafe_bench.json`, Parquet, or the Hub's."""

from pipeline.anyset.opening import open_anyset
from pipeline.anyset.problems import LISTED, Problem, Problems
from pipeline.anyset.table import FIELDS, FURTHER, VOTES, AnySet

__all__ = ["FIELDS", "FURTHER", "LISTED", "VOTES", "AnySet", "Problem", "Problems", "open_anyset"]
