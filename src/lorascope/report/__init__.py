"""Reports: summary.json, report.md and a self-contained report.html."""

from lorascope.report.write import Report, write_report

__all__ = ["Report", "write_report"]
