#!/usr/bin/env python3
"""How fast ringgear-manager takes jobs, beside gearman's own runner.

Usage: measure.py RINGGEARD RINGGEAR_MANAGER REPEATS >samples.csv

A fresh server each time; four workers of one contender wait for jobs; all jobs are submitted in the
background in one burst, and the time until none is left is taken. Contenders take turns.
"""
import json, os, socket, struct, subprocess, sys, tempfile, time

RINGGEARD, MANAGER, REPEATS = sys.argv[1], sys.argv[2], int(sys.argv[3])
# Reads a line, writes a line: as little as a process of mode lines can do.
ECHO = ["mawk", "-W", "interactive", '{ print "{\\"result\\":\\"\\"}"; fflush() }']
CONTENDERS = {
    "gearman -w -- true": (None, None, 4000),
    "exec of true": ("exec", ["true"], 4000),
    "lines of mawk": ("lines", ECHO, 60000),
}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ask(port, line):
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(line)
        text = b""
        while not text.endswith(b".\n"):
            text += s.recv(65536)
    return text


def status(port):
    """Jobs that are left, and workers."""
    for row in ask(port, b"status\n").split(b"\n"):
        if row.startswith(b"bench\t"):
            _, jobs, _, workers = row.split(b"\t")
            return int(jobs), int(workers)
    return 0, 0


def wait_until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("it doesn't come")
        time.sleep(0.002)


def packet(kind, body):
    return b"\0REQ" + struct.pack(">II", kind, len(body)) + body


def submit(port, count):
    with socket.create_connection(("127.0.0.1", port)) as s:
        left = count
        while left:
            batch = min(left, 500)
            s.sendall(b"".join(packet(18, b"bench\0\0x") for _ in range(batch)))
            got = b""
            while got.count(b"\0RES\0\0\0\x08") < batch:
                got += s.recv(1 << 20)
            left -= batch


def run(name):
    mode, command, jobs = CONTENDERS[name]
    port = free_port()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    children = [subprocess.Popen([RINGGEARD, "-L", f"127.0.0.1:{port}"], **quiet)]
    try:
        def listens():
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", port)) == 0
        wait_until(listens)
        if mode is None:
            words = ["gearman", "-h", "127.0.0.1", "-p", str(port), "-w", "-f", "bench", "--", "true"]
            children += [subprocess.Popen(words, **quiet) for _ in range(4)]
        else:
            with tempfile.NamedTemporaryFile("w", suffix=".toml", delete=False) as file:
                file.write(f'servers = ["127.0.0.1:{port}"]\n[[worker]]\nname = "bench"\n'
                           f'functions = ["bench"]\nmode = "{mode}"\ncount = 4\n'
                           f"command = {json.dumps(command)}\n")
            children.append(subprocess.Popen([MANAGER, "--config-file", file.name], **quiet))
        wait_until(lambda: status(port)[1] == 4)
        submit(port, 200)
        wait_until(lambda: status(port)[0] == 0)
        start = time.monotonic()
        submit(port, jobs)
        wait_until(lambda: status(port)[0] == 0)
        return jobs, time.monotonic() - start
    finally:
        for child in reversed(children):
            child.terminate()
            child.wait()


print("contender,repeat,jobs,seconds,jobs_per_second", flush=True)
for repeat in range(REPEATS):
    for name in CONTENDERS:
        jobs, seconds = run(name)
        print(f"{name},{repeat},{jobs},{seconds:.3f},{jobs / seconds:.0f}", flush=True)
