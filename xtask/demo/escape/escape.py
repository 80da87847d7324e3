"""A hostile job: it tries to get out of its sandbox, and says how each try ended. Exit code 0: every try was refused."""
import ctypes
import errno
import os
import signal
import socket

libc = ctypes.CDLL(None, use_errno=True)


def system_call(number, *arguments):
    """A system call as the kernel sees it; x86-64 numbers."""
    if libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def read(path):
    with open(path, "rb") as file:
        file.read(16)


def write(path):
    with open(path, "wb") as file:
        file.write(b"x")


def connect():
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as link:
        link.settimeout(2)
        # The control plane really listens there, on the host.
        link.connect(("127.0.0.1", int(os.environ["HOST_PORT"])))


def foreign_process():
    others = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    for pid in range(2, 100000, 997):
        if pid not in others:
            os.kill(pid, 0)


TRIES = [
    ("mount a file system", lambda: system_call(165, b"none", b"/tmp", b"tmpfs", 0, None)),
    ("enter a new user namespace", lambda: system_call(272, 0x10000000)),
    ("become another root with pivot_root", lambda: system_call(155, b"/", b"/")),
    ("make a device node of the host's disk", lambda: os.mknod("/tmp/disk", 0o060600, os.makedev(254, 0))),
    ("read the machine's memory", lambda: read("/dev/mem")),
    ("read the kernel's memory", lambda: read("/proc/kcore")),
    ("write to the image", lambda: write("/usr/bin/python3")),
    ("write to the input volume", lambda: write("/inputs/patients/breast_cancer.csv")),
    ("change the kernel's settings", lambda: write("/proc/sys/kernel/core_pattern")),
    ("restart the machine", lambda: system_call(169, 0xFEE1DEAD, 672274793, 0x1234567, None)),
    ("load a program into the kernel", lambda: system_call(321, 5, None, 0)),
    ("load a kernel module", lambda: system_call(175, None, 0, b"")),
    ("add a key to the kernel's keyring", lambda: system_call(248, b"user", b"x", b"y", 1, -3)),
    ("reach the network", connect),
    ("signal a process of the host", foreign_process),
]

escaped = 0
for name, attempt in TRIES:
    child = os.fork()
    if child == 0:
        try:
            attempt()
        except OSError as error:
            # The answer travels as the exit code: the try may also end by a signal.
            os._exit(error.errno if error.errno and error.errno < 120 else 120)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        end = f"refused: killed by {signal.Signals(os.WTERMSIG(status)).name}"
    elif os.WEXITSTATUS(status) == 0:
        end, escaped = "IT WORKED", escaped + 1
    else:
        code = os.WEXITSTATUS(status)
        end = f"refused: {errno.errorcode.get(code, code)}"
    print(f"{name}: {end}")
print(f"{len(TRIES) - escaped} of {len(TRIES)} tries were refused")
raise SystemExit(1 if escaped else 0)
