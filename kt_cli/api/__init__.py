"""What kt does, as functions: one module for each command, which does nothing but call it."""

from os import PathLike

Reference = str | PathLike[str]  # a model, or a folder
