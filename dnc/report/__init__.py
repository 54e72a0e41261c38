"""Reports: read result files, write one page, its figures and its numbers. See `dnc.report.html.write_report`."""
