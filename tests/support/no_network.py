"""A command whose processes, all of them, have no network, and a record of the sockets that they try to open.

In Python an audit hook (through sitecustomize) refuses what is not this machine's; where the kernel allows it, the processes are in a
network namespace without interfaces, and strace records their system calls, also those of other languages' libraries.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HOOK = """
import os, sys

LOCAL = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "")


def hook(event, arguments):
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host or ""
    with open(os.environ["SOCKETS"], "a") as log:
        log.write(f"{event} {host} {' '.join(sys.argv)[:200]}\\n")
    if host not in LOCAL and host != __import__("socket").gethostname():
        raise OSError(f"no network: {event} {host}")


sys.addaudithook(hook)
"""
# A namespace begins with its loopback interface down, which no machine's is: SIOCSIFFLAGS with IFF_UP and IFF_RUNNING.
LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
os.execvp(sys.argv[1], sys.argv[1:])
"""
CONNECT = re.compile(r"(?:connect|sendto)\(.*sa_family=AF_INET6?.*?(?:inet_addr\(\"|inet_pton\(AF_INET6, \")([^\"]+)")


def can_trace() -> bool:
    """Whether this machine lets us make a namespace and trace."""
    if not all(map(shutil.which, ("unshare", "strace"))):
        return False
    probe = ["unshare", "-rn", "strace", "-f", "-o", os.devnull, "true"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def run(folder: Path, command: list, environment: dict[str, str], **options) -> subprocess.CompletedProcess:
    """Run `command` without a network; `folder` gets the record."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(HOOK)
    path = os.pathsep.join(filter(None, (str(folder), environment.get("PYTHONPATH"))))
    environment = environment | {"PYTHONPATH": path, "SOCKETS": str(folder / "python.log")}
    if can_trace():
        calls = "trace=socket,connect,sendto"
        trace = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", calls, "-o", str(folder / "kernel.log")]
        command = ["unshare", "-rn", sys.executable, "-c", LOOPBACK, *trace, *command]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **options)


def attempts(folder: Path) -> list[str]:
    """What was tried beyond this machine: lines of Python's record, addresses of the kernel's."""
    python, kernel = folder / "python.log", folder / "kernel.log"
    lines = python.read_text().splitlines() if python.is_file() else []
    found = [line for line in lines if line.split()[1] not in ("127.0.0.1", "::1", "localhost", "0.0.0.0")]
    lines = kernel.read_text(errors="replace").splitlines() if kernel.is_file() else []
    addresses = [match[1] for line in lines if (match := CONNECT.search(line))]
    return found + [address for address in addresses if address not in ("127.0.0.1", "::1", "0.0.0.0")]


def internet_sockets(folder: Path) -> int | None:
    """How many sockets of IPv4 and IPv6 the processes opened, also on this machine; None if they were not traced."""
    kernel = folder / "kernel.log"
    text = kernel.read_text(errors="replace") if kernel.is_file() else ""
    return len(re.findall(r"socket\(AF_INET6?,", text)) if text else None
