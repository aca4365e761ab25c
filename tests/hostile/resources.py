"""Processes and resources: hangs, floods, forks, crashes. One exercise is lost, and only that one.

Each asks for more than it may have, and for no more than a machine survives where the walls fail.
"""

from hostile.entry import FULL, Entry
from hostile.forging import FRAMES
from lib.answers import reference_source

RIGHT = reference_source("02.causal_mask")


def lost(name, before="", inside="pass", id="02.causal_mask", **more):
    """An answer that deserves nothing: something happens when its cell runs, or when it is called."""
    source = before + f"\ndef causal_mask(n):\n    {inside}\n"
    return Entry(name, id[:2], {id: source}, **more)


def kept(name, before, flags=()):
    """An answer that is right all the same, once its mischief has come to nothing."""
    return Entry(name, "02", {"02.causal_mask": before + RIGHT}, {"02.causal_mask": FULL}, flags=flags)


ENTRIES = [
    lost("hang_that_ignores_signals", """
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
    signal.pthread_sigmask(signal.SIG_BLOCK, [number])
""", "while True: pass"),
    lost("hang_in_c", "import re", "re.match(r'(a+)+$', 'a' * 60 + 'b')"),
    lost("hang_at_definition", "while True: pass"),
    lost("sleep", "import time", "time.sleep(10**6)"),
    lost("stops_itself", "import os, signal", "os.kill(os.getpid(), signal.SIGSTOP); import time; time.sleep(10**6)"),
    lost("output_flood", "import os, sys", """while True:
        print('x' * 10**6); os.write(1, b'y' * 10**6); os.write(2, b'z' * 10**6); sys.stderr.write('w' * 10**6)"""),
    lost("channel_flood", "import os", """while True:
        os.write(3, bytes([65]) * 2**20)"""),
    lost("memory", "", "x = [bytearray(10**8) for _ in range(100)]"),
    lost("memory_tensor", "", "return torch.ones(10**6, 10**6, dtype=torch.bool)"),
    lost("memory_of_many", """
import os, time
for i in range(40):
    if os.fork() == 0:
        x = [bytearray(os.urandom(1) * 10**8) for _ in range(2)]
        time.sleep(1000)
time.sleep(1000)
"""),
    lost("memory_shared", """
import mmap, os, time
for i in range(12):
    m = mmap.mmap(-1, 5 * 10**8)
    if os.fork() == 0:
        for at in range(0, len(m), 2**20):
            m[at:at + 2**20] = bytes(2**20)
        time.sleep(1000)
time.sleep(1000)
"""),
    kept("memory_files", """
import ctypes, os
libc, held = ctypes.CDLL(None), []
for i in range(200):
    try:
        held.append(os.memfd_create("x"))
        for _ in range(64):
            os.write(held[-1], bytes(2**20))
    except OSError:
        break
for i in range(20):
    libc.shmat.restype = ctypes.c_void_p
    number = libc.shmget(0, 2**28, 0o1600)
    at = libc.shmat(number, None, 0) if number >= 0 else None
    if at not in (None, ctypes.c_void_p(-1).value):
        ctypes.memset(at, 1, 2**28)
        libc.shmdt(ctypes.c_void_p(at))
        raise MemoryError("segments that nobody counts")
if len(held) > 8:
    raise MemoryError("files of memory that nobody counts")
"""),
    lost("fork_bomb", "import os, time", """for _ in range(11):
        try: os.fork()
        except OSError: pass
    while True: time.sleep(0.001)"""),
    kept("daemons", """
import os, time
for i in range(5):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for fd in range(64):
                try: os.close(fd)
                except OSError: pass
            while True: time.sleep(1)
        os._exit(0)
"""),
    kept("disk", """
for place in ("/tmp", "/dev/shm"):
    try:
        for i in range(100):
            with open(f"{place}/fill{i}", "wb") as file:
                for _ in range(32):
                    file.write(bytes(2**20))
    except OSError:
        pass
try:
    for i in range(20_000):
        open(f"/tmp/empty{i}", "w").close()
    raise MemoryError("as many files as one likes")
except OSError:
    pass
"""),
    kept("threads", """
import threading, time
try:
    for i in range(10_000):
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
except RuntimeError:
    pass
"""),
    lost("segfault", "import ctypes", "ctypes.string_at(0)"),
    lost("abort", "import os", "os.abort()"),
    lost("exit_in_call", "import os", "os._exit(0)"),
    lost("exit_at_definition", "import os\nos._exit(0)"),
    lost("kills_its_group", "import os, signal", "os.killpg(0, signal.SIGKILL)"),
    lost("base_exception", "class Out(BaseException): pass", "raise Out"),
    lost("recursion", "", "return causal_mask(n + 1)"),
    lost("recursion_in_c", "import sys\nsys.setrecursionlimit(10**9)", "return causal_mask(n + 1)"),
    lost("number_of_many_digits", "", "return 1 << 10**7"),
    lost("text_of_many_letters", "", "return 'x' * 10**8"),
    lost("nested_deeply", "", """x = []
    for _ in range(10**5): x = [x]
    return x"""),
    lost("contains_itself", "", """x = []
    x.append(x)
    return x"""),
    lost("a_million_objects", "", "return [object() for _ in range(10**6)]"),
    lost("keys_that_collide", FRAMES + """
frame({"defined": True, "callable": True, "error": None})
keys = [[k * (2**61 - 1), 0] for k in range(200_000)]
frame({"n": 1, "value": {"dict": keys}})
""", "import time; time.sleep(1000)"),
    lost("json_bomb", FRAMES + """
frame({"defined": True, "callable": True, "error": None})
text = b'{"n":1,"value":' + b"[" * 10**6 + b"]" * 10**6 + b"}"
os.write(3, struct.pack(">II", len(text), 0) + text)
""", "import time; time.sleep(1000)"),
    lost("promises_four_gigabytes", FRAMES + "os.write(3, bytes([255]) * 8)", "import time; time.sleep(1000)"),
    lost("drips", FRAMES + """
import threading, time
def drip():
    os.write(3, struct.pack(">II", 10**6, 0))
    while True:
        os.write(3, b" ")
        time.sleep(0.01)
drip()
"""),
    Entry("callback_flood", answers={"02.catches_peeking": """
def catches_peeking(attend):
    x = torch.zeros(2, 2)
    while True:
        attend(x, x, x)
"""}),
    Entry("callback_of_great_size", answers={"02.catches_peeking": """
def catches_peeking(attend):
    n = 1000
    for size in ((n, 1, 1, 1, 1), (1, n, 1, 1, 1), (1, 1, n, 1, 1)):
        pass
    while True:
        try:
            attend(torch.zeros(n, 1, 1, 1, 1), torch.zeros(1, n, 1, 1, 1), torch.zeros(1, 1, n, 1, 1))
        except RuntimeError as error:
            raise ValueError(str(error))
"""}),
    Entry("callback_with_odd_things", answers={"04.catches_leak": """
import os
def catches_leak(model):
    for odd in ("x" * 10**6, 10**30, [[]] * 10**4, None, {"a": object()}, torch.zeros(0), torch.full((1, 4), 10**9),
                torch.zeros(1, 3).to_sparse(), torch.zeros(2, 2, dtype=torch.complex64), float("nan"), model, b"x"):
        for args in ((odd,), (odd, odd), ()):
            try:
                model(*args)
            except Exception:
                pass
    return "yes"
"""}, lesson="04"),
    Entry("hang_in_another_lesson", "04", {"04.count_params": """
def count_params(d_model, d_ff, n_layers, vocab):
    while True:
        pass
"""}),
    Entry("crash_in_another_lesson", "03", {"03.split_heads": """
import os, signal
def split_heads(x, n_heads):
    os.kill(os.getpid(), signal.SIGKILL)
    os._exit(1)
"""}),
]
