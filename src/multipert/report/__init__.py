"""From results to what people read: tables, figures, one self-contained page."""

from multipert.report.run_page import run_page

__all__ = ["run_page"]
