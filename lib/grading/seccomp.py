"""The second wall: system calls that no answer needs, refused by the kernel itself (seccomp, in BPF).

The namespaces already leave nothing to reach. This filter takes away what could be used against the kernel that
makes them: new namespaces, mounts, tracing, keys, BPF, io_uring, and every socket that is not a local one; and memory
that belongs to no process, so that nobody counts it. Only calls that were looked at are let through: a kernel newer
than this list has calls of higher numbers, and those are refused.
"""

import ctypes
import errno
import functools
import platform
import struct

# linux/audit.h, and the numbers of asm/unistd.h for the two processors that the course's packages are built for
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CALLS = {
    "x86_64": dict(
        socket=41, clone=56, clone3=435, ptrace=101, mount=165, umount2=166, pivot_root=155, chroot=161, unshare=272,
        setns=308, add_key=248, request_key=249, keyctl=250, bpf=321, perf_event_open=298, userfaultfd=323,
        process_vm_readv=310, process_vm_writev=311, kcmp=312, init_module=175, finit_module=313, delete_module=176,
        kexec_load=246, kexec_file_load=320, reboot=169, swapon=167, swapoff=168, acct=163, settimeofday=164,
        clock_settime=227, adjtimex=159, clock_adjtime=305, open_by_handle_at=304, name_to_handle_at=303,
        quotactl=179, personality=135, io_uring_setup=425, io_uring_enter=426, io_uring_register=427, open_tree=428,
        move_mount=429, fsopen=430, fsconfig=431, fsmount=432, fspick=433, pidfd_getfd=438, mount_setattr=442,
        fanotify_init=300, syslog=103, iopl=172, ioperm=173, modify_ldt=154, vhangup=153, lookup_dcookie=212,
        move_pages=279, migrate_pages=256, mbind=237, set_mempolicy=238, sethostname=170, setdomainname=171,
        memfd_create=319, memfd_secret=447, shmget=29, semget=64, msgget=68,
        quotactl_fd=443, process_mrelease=448, set_mempolicy_home_node=450, map_shadow_stack=453, statmount=457,
        listmount=458, lsm_get_self_attr=459, lsm_set_self_attr=460, lsm_list_modules=461, nfsservctl=180, uselib=134,
    ),
    "aarch64": dict(
        socket=198, clone=220, clone3=435, ptrace=117, mount=40, umount2=39, pivot_root=41, chroot=51, unshare=97,
        setns=268, add_key=217, request_key=218, keyctl=219, bpf=280, perf_event_open=241, userfaultfd=282,
        process_vm_readv=270, process_vm_writev=271, kcmp=272, init_module=105, finit_module=273, delete_module=106,
        kexec_load=104, kexec_file_load=294, reboot=142, swapon=224, swapoff=225, acct=89, settimeofday=170,
        clock_settime=112, adjtimex=171, clock_adjtime=266, open_by_handle_at=265, name_to_handle_at=264,
        quotactl=60, personality=92, io_uring_setup=425, io_uring_enter=426, io_uring_register=427, open_tree=428,
        move_mount=429, fsopen=430, fsconfig=431, fsmount=432, fspick=433, pidfd_getfd=438, mount_setattr=442,
        fanotify_init=262, syslog=116, vhangup=58, lookup_dcookie=18, move_pages=239, migrate_pages=238, mbind=235,
        set_mempolicy=237, sethostname=161, setdomainname=162,
        memfd_create=279, memfd_secret=447, shmget=194, semget=190, msgget=186,
        quotactl_fd=443, process_mrelease=448, set_mempolicy_home_node=450, map_shadow_stack=453, statmount=457,
        listmount=458, lsm_get_self_attr=459, lsm_set_self_attr=460, lsm_list_modules=461, nfsservctl=42,
    ),
}
REVIEWED = 462  # mseal, of Linux 6.10: the newest call that somebody has looked at
NEW_NAMESPACES = 0x7E020080  # every CLONE_NEW… flag
AF_UNIX = 1
# linux/bpf_common.h and linux/seccomp.h
LOAD, JEQ, JGE, JSET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
NUMBER, MACHINE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data


@functools.cache
def program(machine: str) -> bytes:
    """The filter as BPF instructions. Raises KeyError for a processor that has no table above."""
    calls = dict(CALLS[machine])
    special = {name: calls.pop(name) for name in ("socket", "clone", "clone3")}
    code = [
        (LOAD, 0, 0, MACHINE), (JEQ, 1, 0, ARCH[machine]), (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER),
        (JGE, 0, 1, 0x40000000), (RETURN, 0, 0, REFUSE | errno.ENOSYS),  # the x32 calls have numbers of their own
        (JGE, 0, 1, REVIEWED + 1), (RETURN, 0, 0, REFUSE | errno.ENOSYS),
        (JEQ, 0, 1, special["clone3"]), (RETURN, 0, 0, REFUSE | errno.ENOSYS),  # its flags are out of sight
        (JEQ, 0, 4, special["clone"]), (LOAD, 0, 0, FIRST_ARGUMENT), (JSET, 0, 1, NEW_NAMESPACES),
        (RETURN, 0, 0, REFUSE | errno.EPERM), (RETURN, 0, 0, ALLOW),
        (JEQ, 0, 4, special["socket"]), (LOAD, 0, 0, FIRST_ARGUMENT), (JEQ, 1, 0, AF_UNIX),
        (RETURN, 0, 0, REFUSE | errno.EPERM), (RETURN, 0, 0, ALLOW),
    ]  # fmt: skip
    for number in sorted(calls.values()):
        code += [(JEQ, 0, 1, number), (RETURN, 0, 0, REFUSE | errno.EPERM)]
    code.append((RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("HBBI", *line) for line in code)


class Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def install() -> bool:
    """Put the filter on this process and all it will start, for good; False on a processor that has no table."""
    if platform.machine() not in CALLS:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    code = program(platform.machine())
    buffer = ctypes.create_string_buffer(code, len(code))

    filter = Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filter), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "seccomp refused the filter")
    return True
