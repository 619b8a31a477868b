"""Was it the memory that did not suffice? PyTorch's errors differ by device and allocator, often only in their text."""

from __future__ import annotations

__all__ = ["is_no_memory"]

_TEXTS = ("not enough memory", "out of memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")


def is_no_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice, on a CPU or on a CUDA device."""
    return isinstance(error, MemoryError) or any(text in str(error).lower() for text in _TEXTS)
