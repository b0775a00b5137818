"""A built dataset for others: in HoliSafe's own format, as LLaVA conversations, and on the Hub."""

from pipeline.export.bench import export_bench
from pipeline.export.folder import Exported
from pipeline.export.hub import HubPlan, plan_upload, upload
from pipeline.export.llava import export_llava

__all__ = ["Exported", "HubPlan", "export_bench", "export_llava", "plan_upload", "upload"]
