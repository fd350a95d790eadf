"""The version of kt."""

__version__ = "0.1.0"
