"""Rows in; tables, plots and a page out. Imports no torch."""
