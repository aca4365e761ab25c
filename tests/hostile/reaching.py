"""Reaching for files, other learners, the grader, its environment, the network, the next submission.

Each looks first and then answers rightly, so it deserves full points; whatever it finds it puts where the test will
see it: in an exception's text (which the grader keeps), in a file outside, in a packet.

None of them may do harm where the walls fail: what is not the test's own is only opened, stat'ed, signalled with 0, or
asked with arguments that cannot work, and the error tells how far it got. Nothing of it is written, killed or mounted.
"""

from hostile.entry import FULL, Entry
from lib.answers import reference_source

# `try_to(what, f)`: f() returns what it has got hold of, or nothing.
SPY = """
import ctypes, glob, os, socket, struct, sys
found = []
libc = ctypes.CDLL(None, use_errno=True)
def try_to(what, f, *args):
    try:
        got = f(*args)
    except BaseException:
        return
    if got:
        found.append(f"ESCAPED: {what}: {got!r:.80}")
        try:
            with open("@DROP@/" + what.replace(" ", "_"), "w") as file:
                file.write(str(found))
        except BaseException:
            pass
def read(path):
    with open(path, "rb") as file:
        return file.read(200)
def write(path):  # in a folder of the test's own
    with open(path, "a") as file:
        file.write("ESCAPED")
    return path
def writable(path):  # anywhere: opened, never written
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
    return path
def reached(call, *args):  # a call that cannot succeed: did the kernel look at it, or refuse at the door?
    ctypes.set_errno(0)
    return call(*args) >= 0 or ctypes.get_errno() not in (1, 13, 38)
"""
END = """
_right = causal_mask
def causal_mask(n):
    if found:
        raise RuntimeError(str(found))
    return _right(n)
"""


def spy(name, source, path=""):
    return Entry(name, "02", {"02.causal_mask": SPY + source + reference_source("02.causal_mask") + END},
                 {"02.causal_mask": FULL}, path=path)  # fmt: skip


ENTRIES = [
    spy("other_learners", """
try_to("the class", os.listdir, "@CLASS@")
for folder, _, names in os.walk("@CLASS@"):
    for name in names:
        try_to("a file of the class", read, os.path.join(folder, name))
try_to("a file of the class", read, "@CLASS@/good_plain/02_attention.ipynb")
"""),
    spy("searches_the_disk", """
OURS = {os.path.realpath(p) for p in ("/usr", "/lib", "/proc", sys.prefix, sys.base_prefix, os.path.dirname(os.__file__))}
for folder, below, names in os.walk("/"):
    below[:] = [b for b in below if os.path.realpath(os.path.join(folder, b)) not in OURS]
    for name in names:
        if name.endswith((".ipynb", ".sqlite")) or "gradebook" in name:
            found.append("ESCAPED: sees " + name)
"""),
    spy("references_and_checks", """
for path in ("@ROOT@/lib/grading/answers/l02.py", "@ROOT@/lib/grading/exercises/l02.py", "@ROOT@/lib/grading/check.py",
             "@ROOT@/notebooks/02_attention.ipynb", "@ROOT@/tests/hostile/entry.py", "/course/lib/grading/check.py"):
    try_to("a file of the grader", read, path)
def imported(name):
    __import__(name)
    return sys.modules[name].__file__
for name in ("lib.answers.a02", "lib.lesson.checks", "lib.exercises.exercise", "lib.lesson.series", "hostile"):
    try_to("import " + name, imported, name)
for place in sys.path + [sys.prefix]:
    for deep in ("", "/*", "/*/*", "/*/*/*/*"):  # not "**": all packages' folders take longer than an answer may
        for path in glob.glob(place + deep + "/grading/answers/*.py"):
            try_to("a reference", read, path)
"""),
    spy("gradebook_and_home", """
for path in ("@OUT@/gradebook.sqlite", "@OUT@/grades.json", os.path.expanduser("~root/.bashrc"), "/root/.ssh",
             "/etc/shadow", "/etc/passwd", "/etc/hostname", "/var/log", "/root/.cache/transformer-course"):
    try_to("a file", os.access, path, os.R_OK)
"""),
    spy("writes_outside", """
try_to("write dropped", write, "@DROP@/dropped")
try_to("write in the class", write, "@CLASS@/good_plain/ESCAPED")
try_to("a folder outside", os.makedirs, "@DROP@/folder")
"""),
    spy("could_write_anywhere", """
import torch as t
for path in ("@CLASS@/good_plain/02_attention.ipynb", "@OUT@/gradebook.sqlite", "/judge/runner.py",
             "/course/lib/attention.py", t.__file__, os.__file__, sys.executable, "/etc/ld.so.cache",
             "/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"):
    try_to("write " + os.path.basename(path), writable, path)
for place in ("/", "/etc", "/usr", "/var", "/dev", "/judge", "/course", "/course/lib", sys.prefix):
    try_to("write in " + place.replace("/", "_"), os.access, place, os.W_OK)
"""),
    spy("network", """
def tcp(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(0.3)
        s.connect(address)
        s.sendall(b"ESCAPED")
        return "connected"
def udp(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        return s.sendto(b"ESCAPED", address)
try_to("tcp", tcp, socket.AF_INET, ("127.0.0.1", @PORT@))
try_to("udp", udp, ("127.0.0.1", @PORT@))
def raw():
    fd = libc.socket(2, 1, 0)
    if fd >= 0 and libc.connect(fd, struct.pack("=HH4s8x", 2, socket.htons(@PORT@), bytes([127, 0, 0, 1])), 16) == 0:
        return libc.write(fd, b"ESCAPED", 7)
try_to("libc", raw)
for family in (16, 17, 38, 40, 31, 44):
    try_to("netlink and others", lambda: libc.socket(family, 3, 0) >= 0)
import urllib.request
try_to("http", lambda: urllib.request.urlopen("http://127.0.0.1:@PORT@/ESCAPED", timeout=0.3).read() or "reached")
"""),
    spy("local_sockets", """
def local(address, kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_UNIX, kind) as s:
        s.settimeout(0.3)
        s.connect(address)
        s.send(b"ESCAPED")
        return "connected"
for address in ("\\0@TOKEN@", "@DROP@/socket"):
    try_to("a local socket", local, address)
for path in ("/run/dbus/system_bus_socket", "/var/run/docker.sock", "/tmp/.X11-unix/X0", "/run/systemd/private"):
    try_to("a socket of the system", os.path.exists, path)
"""),
    spy("environment", """
def canary(data):
    return b"CANARY-" in data and data[max(0, data.index(b"CANARY-") - 20):][:80]
try_to("environ", lambda: canary(repr(dict(os.environb)).encode()))
for pid in ["self", "1", "2", "3", "thread-self"] + [str(n) for n in range(4, 400)]:
    for name in ("environ", "cmdline", "maps", "status", "root/etc/passwd", "cwd"):
        try_to(f"proc {name}", os.access, f"/proc/{pid}/{name}", os.R_OK)
environ = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
def walked():
    i, data = 0, b""
    while environ[i]:
        data += environ[i] + b" "
        i += 1
    return canary(data)
try_to("libc's environ", walked)
if len(os.environ) > 40:
    found.append("ESCAPED: a large environment")
"""),
    spy("other_processes", """
try_to("list", lambda: [n for n in os.listdir("/proc") if n.isdecimal()])
me = os.getpid()
for pid in [n for n in range(2, 600) if n != me]:
    try_to("signal", lambda: os.kill(pid, 0) or pid)
    if pid < 40:
        try_to("ptrace", lambda: reached(libc.ptrace, 9999, pid, 0, 0))
        try_to("pidfd", lambda: os.close(os.pidfd_open(pid)) or pid)
        class Span(ctypes.Structure): _fields_ = (("at", ctypes.c_void_p), ("size", ctypes.c_size_t))
        here, there = ctypes.create_string_buffer(8), 0x400000
        try_to("memory", lambda: libc.process_vm_readv(
            pid, ctypes.byref(Span(ctypes.addressof(here), 8)), 1, ctypes.byref(Span(there, 8)), 1, 0) > 0)
"""),
    spy("descriptors", """
for fd in range(1024):
    try:
        os.fstat(fd)
    except OSError:
        continue
    if fd not in (0, 1, 2, 3):
        found.append(f"ESCAPED: descriptor {fd} is open")
for fd in (0, 1, 2):
    if os.fstat(fd).st_rdev != os.makedev(1, 3):
        found.append(f"ESCAPED: descriptor {fd} is not the null device")
"""),
    spy("namespaces_and_mounts", """
for name, flag in ("user", 0x10000000), ("net", 0x40000000), ("mount", 0x20000), ("pid", 0x20000000):
    try_to("unshare " + name, lambda: reached(libc.unshare, flag))
try_to("umount", reached, libc.umount2, b"/nowhere/at/all", 0)
try_to("mount", reached, libc.mount, b"proc", b"/nowhere/at/all", b"proc", 0, None)
try_to("chroot", reached, libc.chroot, b"/nowhere/at/all")
try_to("setns", reached, libc.setns, -1, 0)
try_to("root", lambda: os.setuid(0) or os.getuid() == 0)
try_to("groups", lambda: os.setgroups([0]) or "set")
for name, number, *args in (("keys", 250, -1, 0), ("bpf", 321, -1, 0, 0), ("userfault", 323, -1), ("uring", 425, 0, 0),
                            ("perf", 298, 0, 0, -1, -1, 0), ("by handle", 304, -1, 0, 0), ("modules", 313, -1, b"", 0),
                            ("memory file", 319, 0, -1), ("segment", 29, 0, 0, 0), ("clone3", 435, 0, 0)):
    if os.uname().machine == "x86_64":  # elsewhere these numbers are other calls
        try_to(name, reached, libc.syscall, number, *args)
if os.getuid() == 0:
    found.append("ESCAPED: runs as root")
"""),
    spy("devices", """
for name in ("kmsg", "mem", "sda", "vda", "nvme0n1", "kvm", "fuse", "tty1", "net/tun", "loop-control", "input/event0",
             "nvidia0", "nvidiactl", "dri/card0"):
    try_to("device " + name, lambda: os.open("/dev/" + name, os.O_RDONLY) + 1)
try_to("a new device", lambda: os.mknod("@DROP@/null", 0o20600, os.makedev(1, 3)) or "made")
"""),
    spy("leaves_for_the_next", """
for place in ("/tmp", "/dev/shm"):
    with open(place + "/LEFT-BEHIND", "w") as file:
        file.write("LEFT-BEHIND")
libc.shmget(0x1E55, 4096, 0o1666)
libc.msgget(0x1E55, 0o1666)
libc.semget(0x1E55, 1, 0o1666)
left = socket.socket(socket.AF_UNIX)
left.bind("\\0LEFT-BEHIND")
left.listen()
os.environ["LEFT_BEHIND"] = "1"
if os.fork() == 0:
    os.setsid()
    import time
    time.sleep(1000)
"""),
    *[spy(f"looks_for_what_is_left_{i}", """
for place in ("/tmp", "/dev/shm"):
    try_to("a file", read, place + "/LEFT-BEHIND")
    # but for this Python, which may live there
    try_to("anything", lambda: [n for n in os.listdir(place) if not f"{sys.prefix}/".startswith(f"{place}/{n}/")])
libc.shmget.restype = ctypes.c_int
try_to("shared memory", lambda: libc.shmget(0x1E55, 4096, 0) >= 0)
try_to("a queue", lambda: libc.msgget(0x1E55, 0) >= 0)
try_to("a semaphore", lambda: libc.semget(0x1E55, 1, 0) >= 0)
def connected():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("\\0LEFT-BEHIND")
        return True
try_to("a socket", connected)
try_to("environ", os.environ.get, "LEFT_BEHIND")
""") for i in (1, 2)],
    spy("changes_the_next", """
import builtins, wire
torch.ones = torch.arange = torch.tril = lambda *a, **k: 1 / 0
builtins.print = builtins.exec = None
sys.modules["__main__"] = sys.modules["wire"] = None
os.chdir("/")
import importlib
torch.arange = importlib.import_module("torch").range
torch.set_default_dtype(torch.float16)
builtins.exec = lambda *a: None
def arange(n):
    return torch.tensor(list(range(n)))
torch.arange = arange
"""),
    spy("kernel_settings", """
import resource
for name in ("AS", "CPU", "NPROC", "FSIZE", "CORE", "NOFILE"):
    which = getattr(resource, "RLIMIT_" + name)
    soft, hard = resource.getrlimit(which)
    if hard == resource.RLIM_INFINITY:
        found.append(f"ESCAPED: no limit on {name}")
    try_to("raise " + name, lambda: resource.setrlimit(which, (resource.RLIM_INFINITY,) * 2) or "raised")
try_to("priority", lambda: os.nice(-5) < 0)
try_to("real time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)) or "set")
try_to("dump", lambda: libc.prctl(4, 1, 0, 0, 0) == 0 and os.path.exists("/proc/self/mem"))
"""),
]
