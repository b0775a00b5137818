"""Audit: of a build, as its last stage, and of any dataset."""

from pipeline.audit.anyones import audit_anyset
from pipeline.audit.stage import run

__all__ = ["audit_anyset", "run"]
