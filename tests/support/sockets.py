"""Which sockets a process listens on, as Linux's /proc says it without any privilege."""

import contextlib
import ipaddress
import os
import struct
from collections.abc import Iterable
from pathlib import Path

LISTEN = "0A"


def listening(pids: Iterable[int]) -> set[str]:
    """`address:port` of every TCP socket that one of the processes listens on."""
    wanted = set()
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended since it was found
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):  # closed since
                    wanted.add(os.readlink(fd))
    found = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = row.split()
            inode = row.split()[9]
            if state == LISTEN and f"socket:[{inode}]" in wanted:
                address, port = local.split(":")
                found.add(f"{_address(address)}:{int(port, 16)}")
    return found


def _address(text: str) -> str:
    """The kernel writes addresses as 32-bit words in the machine's byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    address = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
