"""Give free memory back to the system, so that the process stays small for months. Does nothing without glibc."""

import ctypes

# From glibc's malloc.h: larger blocks go back to the system as soon as they are free. By itself glibc raises this limit
# to the largest block it has seen, and then the tables of each candle and network break up the heap.
M_MMAP_THRESHOLD, LARGE_BLOCK = -3, 128 * 1024


def keep_heap_whole() -> None:
    """Take large blocks from the system; call this before the first large block."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)


def give_back_heap() -> None:
    """Give back the free space between blocks in use, of all threads: half a millisecond, three at most."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
