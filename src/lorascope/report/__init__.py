"""Reports: summary.json, report.md and a self-contained report.html."""

from lorascope.report.write import ReportPaths, write_report

__all__ = ["ReportPaths", "write_report"]
