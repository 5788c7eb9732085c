"""The report: one HTML page from the files of a study or a run, and the result on the console."""

from __future__ import annotations

from engine.report.page import write_run_report, write_study_report
from engine.report.terminal import front_table, summary_line
from engine.report.text import describe

__all__ = ["describe", "front_table", "summary_line", "write_run_report", "write_study_report"]
