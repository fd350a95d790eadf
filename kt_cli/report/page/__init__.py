"""One HTML file: the tables and plots of a report, all rows to explore, where they come from."""

from kt_cli.report.page.fields import MAX_ROWS, needs
from kt_cli.report.page.render import render_page

__all__ = ["MAX_ROWS", "needs", "render_page"]
