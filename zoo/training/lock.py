"""One training process a run folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from zoo.errors import ZooError

__all__ = ["run_lock"]


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process, or raise one line if another one holds it.

    The lock is the system's, on the folder itself: it ends with the process, however that ends, and leaves no file.
    Where there are no such locks (Windows, some network disks) nothing is held.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ZooError(
            f"{folder} is in use: another process trains there. Wait for it to end, or choose another run_dir."
        ) from error
    except OSError:  # a disk without locks
        pass
    try:
        yield
    finally:
        os.close(descriptor)
