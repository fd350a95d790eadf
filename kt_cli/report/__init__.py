"""Rows in, tables out: statistics, tables as values, and their text formats. Imports no torch."""
