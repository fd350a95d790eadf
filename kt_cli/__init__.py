"""kt: find the knowledge that pretrained models do not share, and move it."""

__version__ = "0.1.0"
