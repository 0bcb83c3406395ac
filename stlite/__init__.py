"""stlite: teach a video language model to reason about where it has been, on one consumer GPU."""

__version__ = "0.1.0"
