"""The file system that a folder is on: whether its locks are seen by all who can write there.

On a local one they are: whoever sees the folder, another container too, runs on the same kernel.

Border: knows types of file systems by name alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePath

import psutil

# One that is not in this list, network, FUSE or unknown, may be written from another machine.
LOCAL = frozenset(
    ("apfs", "bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "hfs", "jfs", "overlay")
) | {"ramfs", "reiserfs", "tmpfs", "ufs", "xfs", "zfs"}


def is_local(folder: Path) -> bool:
    """Return whether a folder is on a file system of this machine alone."""
    mounts = [(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]
    return type_of(folder.resolve(), mounts) in LOCAL


def type_of(folder: PurePath, mounts: Iterable[tuple[str, str]]) -> str:
    """Type of the file system that holds a folder; empty if no mount does.

    Args:
        mounts: Folders and types of all mounts, in the order in which they were mounted.
    """
    found = PurePath(), ""
    for point, kind in mounts:
        # A later mount hides an earlier one at the same folder.
        if folder.is_relative_to(point) and len(PurePath(point).parts) >= len(found[0].parts):
            found = PurePath(point), kind
    return found[1]
