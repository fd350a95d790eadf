"""What kt does, as functions: one module for each command, which does nothing but call it."""
