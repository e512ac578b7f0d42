"""From results to what people read: tables, figures, one self-contained page."""

from multipert.report.run_page import run_page
from multipert.report.study_page import study_page
from multipert.report.study_tables import study_table

__all__ = ["run_page", "study_page", "study_table"]
