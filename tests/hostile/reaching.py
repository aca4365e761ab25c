"""Reaching for files, other learners, the grader, its environment, the network, the next submission.

Each looks first and then answers rightly, so it deserves full points; whatever it finds it puts where the test will
see it: in an exception's text (which the grader keeps), in a file outside, in a packet.
"""

from hostile.entry import FULL, Entry
from lib.grading.answers import reference_source

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
            open("@DROP@/" + what.replace(" ", "_"), "w").write(str(found))
        except BaseException:
            pass
def read(path):
    with open(path, "rb") as file:
        return file.read(200)
def write(path):
    with open(path, "a") as file:
        file.write("ESCAPED")
    return path
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
OURS = {os.path.realpath(p) for p in ("/usr", "/lib", "/proc", sys.prefix, sys.base_prefix, os.path.dirname(os.__file__))}
for top in ("@CLASS@", "/"):
    for folder, below, names in os.walk(top):
        below[:] = [b for b in below if os.path.realpath(os.path.join(folder, b)) not in OURS]
        for name in names:
            if name.endswith((".ipynb", ".sqlite")) or "gradebook" in name:
                try_to("a file of the class", read, os.path.join(folder, name))
try_to("the class", os.listdir, "@CLASS@")
"""),
    spy("references_and_checks", """
for path in ("@ROOT@/lib/grading/answers/l02.py", "@ROOT@/lib/grading/exercises/l02.py", "@ROOT@/lib/grading/check.py",
             "@ROOT@/notebooks/02_attention.ipynb", "@ROOT@/tests/hostile/entry.py", "/course/lib/grading/check.py"):
    try_to("a file of the grader", read, path)
def imported(name):
    __import__(name)
    return sys.modules[name].__file__
for name in ("lib.grading.answers.l02", "lib.grading.check", "lib.grading.exercise", "lib.course.lessons", "hostile"):
    try_to("import " + name, imported, name)
for place in sys.path + [sys.prefix]:
    for path in glob.glob(place + "/**/grading/answers/*.py", recursive=True):
        try_to("a reference", read, path)
"""),
    spy("gradebook_and_home", """
for path in ("@OUT@/gradebook.sqlite", "@OUT@/grades.json", os.path.expanduser("~root/.bashrc"), "/root/.ssh",
             "/etc/shadow", "/etc/passwd", "/etc/hostname", "/var/log", "/root/.cache/transformer-course"):
    try_to("a file", read, path)
    try_to("a folder", os.listdir, path)
"""),
    spy("writes_outside", """
import torch as t
for path in ("@DROP@/dropped", "@CLASS@/good_plain/02_attention.ipynb", "@OUT@/grades.json", "/judge/runner.py",
             "/judge/x", "/course/lib/attention.py", "/etc/x", "/usr/x", "/x", "/dev/x", "/var/x", sys.prefix + "/x",
             t.__file__, os.__file__, sys.executable, "/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern"):
    try_to("write " + os.path.basename(path), write, path)
try_to("a folder outside", os.makedirs, "@DROP@/folder")
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
try_to("tcp6", tcp, socket.AF_INET6, ("::1", @PORT@))
try_to("udp", udp, ("127.0.0.1", @PORT@))
try_to("names", socket.gethostbyname, "example.org")
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
for address in ("\\0@TOKEN@", "@DROP@/socket", "/run/dbus/system_bus_socket", "/var/run/docker.sock",
                "/tmp/.X11-unix/X0", "\\0/tmp/.X11-unix/X0", "/run/systemd/private", "\\0/tmp/dbus"):
    try_to("a local socket", local, address)
    try_to("a local socket", local, address, socket.SOCK_DGRAM)
"""),
    spy("environment", """
def canary(data):
    return b"CANARY-" in data and data[max(0, data.index(b"CANARY-") - 20):][:80]
try_to("environ", lambda: canary(repr(dict(os.environb)).encode()))
for pid in ["self", "1", "2", "3", "thread-self"] + [str(n) for n in range(4, 400)]:
    for name in ("environ", "cmdline", "maps", "status", "root/etc/passwd", "cwd"):
        try_to(f"proc {name}", read, f"/proc/{pid}/{name}")
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
import signal
try_to("list", lambda: [n for n in os.listdir("/proc") if n.isdecimal()])
me = os.getpid()
for pid in [n for n in range(2, 600) if n != me]:
    try_to("signal", lambda: os.kill(pid, 0) or pid)
    try_to("kill", lambda: os.kill(pid, signal.SIGKILL) or pid)
    if pid < 40:
        try_to("ptrace", lambda: libc.ptrace(16, pid, 0, 0) == 0)
        try_to("pidfd", lambda: libc.syscall(434, pid, 0) >= 0)
        class Span(ctypes.Structure): _fields_ = (("at", ctypes.c_void_p), ("size", ctypes.c_size_t))
        here, there = ctypes.create_string_buffer(8), 0x400000
        try_to("memory", lambda: libc.process_vm_readv(
            pid, ctypes.byref(Span(ctypes.addressof(here), 8)), 1, ctypes.byref(Span(there, 8)), 1, 0) > 0)
try:
    os.kill(-1, signal.SIGCONT)
except OSError:
    pass
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
for name in ("unshare_user", 0x10000000), ("unshare_net", 0x40000000), ("unshare_mount", 0x20000), ("pid", 0x20000000):
    try_to(name[0], lambda: libc.unshare(name[1]) == 0)
try_to("umount", lambda: libc.umount2(b"/proc", 2) == 0)
try_to("mount proc", lambda: libc.mount(b"proc", b"/tmp", b"proc", 0, None) == 0)
try_to("bind", lambda: libc.mount(b"/", b"/tmp", None, 4096 | 16384, None) == 0)
try_to("chroot", lambda: libc.chroot(b"/") == 0)
try_to("clone", lambda: libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0) > 0)
try_to("clone3", lambda: libc.syscall(435, 0, 0) >= 0)
try_to("root", lambda: os.setuid(0) or os.getuid() == 0)
try_to("groups", lambda: os.setgroups([0]) or "set")
try_to("keys", lambda: libc.syscall(250, 0, -3, 1) > 0)
try_to("bpf", lambda: libc.syscall(321, 0, 0, 0) >= 0)
try_to("userfault", lambda: libc.syscall(323, 0) >= 0)
try_to("uring", lambda: libc.syscall(425, 8, ctypes.create_string_buffer(200)) >= 0)
try_to("perf", lambda: libc.syscall(298, ctypes.create_string_buffer(200), 0, -1, -1, 0) >= 0)
try_to("host name", lambda: socket.sethostname("owned") or "set")
try_to("by handle", lambda: libc.syscall(304, -100, ctypes.create_string_buffer(200), 0) >= 0)
if os.getuid() == 0:
    found.append("ESCAPED: runs as root")
"""),
    spy("devices", """
for name in ("kmsg", "mem", "sda", "vda", "nvme0n1", "kvm", "fuse", "tty1", "net/tun", "loop-control", "input/event0",
             "nvidia0", "nvidiactl", "dri/card0"):
    try_to("device " + name, lambda: os.open("/dev/" + name, os.O_RDONLY) + 1)
try_to("a new device", lambda: os.mknod("/tmp/sda", 0o60600, os.makedev(8, 0)) or os.open("/tmp/sda", os.O_RDONLY) + 1)
"""),
    spy("leaves_for_the_next", """
import mmap
for place in ("/tmp", "/dev/shm", "/var/tmp", "/run", os.getcwd(), os.path.expanduser("~")):
    try:
        open(place + "/LEFT-BEHIND", "w").write("LEFT-BEHIND")
    except OSError:
        pass
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
for place in ("/tmp", "/dev/shm", "/var/tmp", "/run", os.getcwd(), os.path.expanduser("~")):
    try_to("a file", read, place + "/LEFT-BEHIND")
    try_to("anything", lambda: place in ("/tmp", "/dev/shm") and os.listdir(place))
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
sys.path.insert(0, "/tmp")
open("/tmp/torch.py", "w").write("1 / 0")
open("/tmp/sitecustomize.py", "w").write("1 / 0")
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
