"""What `kt doctor` looks at. A check is a function that yields findings; CHECKS lists them all.

A check sees the surroundings as they are (files, commands, environment variables) and asks nothing
of them that changes anything, but for a small file that it removes again.
"""

from __future__ import annotations
