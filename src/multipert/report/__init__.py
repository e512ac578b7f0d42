"""From results to what people read: tables, figures, one self-contained page."""

from multipert.report.check_page import check_page
from multipert.report.page import study_page
from multipert.report.paper_tables import study_table
from multipert.report.search_page import search_page

__all__ = ["check_page", "search_page", "study_page", "study_table"]
