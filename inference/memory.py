"""Memory that is free goes back to the system: for months on a small machine. Nothing of it without glibc."""

import ctypes

# From glibc's malloc.h: blocks above this many bytes are the system's again once they are free. By itself glibc raises
# that limit to the largest block it has seen, and the tables of each candle and network break up the heap.
M_MMAP_THRESHOLD, LARGE_BLOCK = -3, 128 * 1024


def keep_heap_whole() -> None:
    """Let large blocks come from the system; to be called before there are any."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)


def give_back_heap() -> None:
    """Give back what is free among blocks in use, in every thread's heap: half a millisecond, three at the most."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
