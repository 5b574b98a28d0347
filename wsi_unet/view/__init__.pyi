from .overlay import write_overlay as write_overlay

__all__ = [
    "write_overlay",
]
