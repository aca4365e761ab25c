"""Run a command in a namespace without network: python tests/offline.py COMMAND [ARGUMENT …].

Loopback stays, for notebooks talk to their kernels over it. Works on Linux, for root and for an ordinary user
where the system allows user namespaces; elsewhere the command runs with the network on, and stderr says so.
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


def leave_the_network() -> None:
    """Move this process into a network namespace of its own with only loopback. Raises OSError if it can't."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "unshare"):
        raise OSError("this system has no namespaces")
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNET) != 0:  # root may; anyone else needs a user namespace too
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        for name, line in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(line)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    try:
        leave_the_network()
        print("offline: only loopback is left", file=sys.stderr)
    except OSError as error:
        print(f"offline: no network namespace here ({error}); the network stays on", file=sys.stderr)
    os.execvp(sys.argv[1], sys.argv[1:])
