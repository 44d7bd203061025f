"""The report: all of its runs, and its numbers beside ours, as one page."""
