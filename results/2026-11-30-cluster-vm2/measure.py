#!/usr/bin/env python3
"""Several servers on one database: what they take, and how long a backlog waits for its next server.

Usage (as root, which runs PostgreSQL as its own user):
  measure.py submits BINARIES [EARLIER_BINARIES] REPEATS   durable submissions a second
  measure.py idle BINARIES REPEATS                         the same, and what the cores have left
  measure.py times BINARIES REPEATS                        kill, stop and SIGTERM in turn
Rows of a table of comma-separated values go to standard output. BINARIES is a folder with
ringgeard and loadgen. PostgreSQL has its defaults but for what a row names. Contenders take turns.
"""
import json, os, pathlib, pwd, select, signal, socket, struct, subprocess, sys, tempfile, threading, time

POSTGRES = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))[-1]
USER = pwd.getpwnam("postgres")
SECONDS = 5


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def as_postgres(command, **more):
    return subprocess.Popen(["setpriv", f"--reuid={USER.pw_uid}", f"--regid={USER.pw_gid}",
                             "--clear-groups"] + [str(it) for it in command], **more)


class Database:
    """A PostgreSQL server in a folder of its own, with the database jobs."""

    def __init__(self, folder, **settings):
        os.chmod(folder, 0o755)
        self.folder = pathlib.Path(folder) / "pg"
        self.folder.mkdir()
        os.chown(self.folder, USER.pw_uid, USER.pw_gid)
        self.port = free_port()
        quiet = dict(cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        as_postgres([POSTGRES / "initdb", "-D", "data", "-U", "postgres", "-A", "trust", "--no-sync"],
                    **quiet).wait()
        flags = [f"-c{name}={value}" for name, value in settings.items()]
        self.process = as_postgres([POSTGRES / "postgres", "-D", "data", f"-p{self.port}",
                                    f"-k{self.folder}", "-clisten_addresses=127.0.0.1"] + flags, **quiet)
        until(lambda: subprocess.call([POSTGRES / "pg_isready", "-q", "-h127.0.0.1", f"-p{self.port}"]) == 0)
        self.sql("CREATE DATABASE jobs", "postgres")

    def sql(self, text, database="jobs"):
        return subprocess.check_output(
            ["psql", "-XAtq", "-h127.0.0.1", f"-p{self.port}", "-Upostgres", "-d", database, "-c", text],
            text=True).strip()

    def empty(self):
        tables = "job dead pause owner cluster partition block".split()
        self.sql("SET client_min_messages = error; DROP TABLE IF EXISTS "
                 + ", ".join("ringgear_" + it for it in tables) + "; CHECKPOINT")

    def url(self):
        return f"postgres://postgres@127.0.0.1:{self.port}/jobs"

    def stop(self):
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()


def until(condition, limit=60, interval=0.002):
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("it doesn't come")
        time.sleep(interval)


class Server:
    def __init__(self, binaries, arguments):
        self.port = free_port()
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen([f"{binaries}/ringgeard", f"--port={self.port}", "--verbose=INFO"]
                                        + arguments, stdout=self.log, stderr=self.log)
        until(self.answers)

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.2):
                return True
        except OSError:
            if self.process.poll() is not None:
                self.log.seek(0)
                sys.exit(self.log.read().decode())
            return False

    def end(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            self.process.wait()


def loads(binaries, servers, words):
    """Jobs a second, the sum over all servers; each has a load generator of its own."""
    runs = [subprocess.Popen([f"{binaries}/loadgen", f"--addr=127.0.0.1:{it.port}", "--json", "--threads=1"] + words,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for it in servers]
    return sum(json.loads(it.communicate()[0])["jobs_per_second"] for it in runs)



FLOOD = f"--mode=background --workers=8 --clients=50 --pipeline=16 --size=64 --duration={SECONDS}s".split()
CLOSED = f"--mode=background --workers=4 --clients=16 --pipeline=1 --size=64 --duration={SECONDS}s".split()


def submits(arguments):
    *folders, repeats = arguments
    new, earlier = folders[0], folders[1] if len(folders) > 1 else None
    print("repeat,contender,jobs_per_second", flush=True)

    def row(repeat, name, rate):
        print(f"{repeat},{name},{rate:.0f}", flush=True)

    for repeat in range(int(repeats)):
        for name, binaries in [("now", new), ("before", earlier)]:
            if not binaries:
                continue
            with tempfile.TemporaryDirectory() as folder:
                server = Server(binaries, [f"--store=sqlite:{folder}/jobs.db"])
                row(repeat, f"SQLite {name}, 50 x 16 in flight", loads(binaries, [server], FLOOD))
                server.end()
                database = Database(folder)
                server = Server(binaries, [f"--store={database.url()}"])
                row(repeat, f"PostgreSQL {name}, 50 x 16 in flight", loads(binaries, [server], FLOOD))
                server.end()
                database.stop()
        with tempfile.TemporaryDirectory() as folder:
            database = Database(folder, commit_delay=10000, commit_siblings=0)
            for count in [1, 3]:
                database.empty()
                servers = [Server(new, [f"--store={database.url()}", "--cluster"]) for _ in range(count)]
                row(repeat, f"commit_delay of 10 ms, servers: {count}", loads(new, servers, CLOSED))
                for server in servers:
                    server.end()
            database.stop()


def cores():
    """Time of all cores so far, of it idle, of it waiting for the disk."""
    times = [int(it) for it in open("/proc/stat").readline().split()[1:9]]
    return sum(times), times[3] + times[4], times[4]


def idle(arguments):
    binaries, repeats = arguments
    print("repeat,contender,jobs_per_second,idle_percent,waiting_for_disk_percent", flush=True)

    def row(repeat, name, servers):
        runs = [subprocess.Popen([f"{binaries}/loadgen", f"--addr=127.0.0.1:{it.port}", "--json", "--threads=1"]
                                 + FLOOD, stdout=subprocess.PIPE) for it in servers]
        time.sleep(2)
        begin = cores()
        time.sleep(3.5)
        all_, left, disk = (after - before for after, before in zip(cores(), begin))
        rate = sum(json.loads(it.communicate()[0])["jobs_per_second"] for it in runs)
        print(f"{repeat},{name},{rate:.0f},{100 * left / all_:.0f},{100 * disk / all_:.0f}", flush=True)

    for repeat in range(int(repeats)):
        with tempfile.TemporaryDirectory() as folder:
            server = Server(binaries, [f"--store=sqlite:{folder}/jobs.db"])
            row(repeat, "SQLite", [server])
            server.end()
        for count in [1, 3]:
            with tempfile.TemporaryDirectory() as folder:
                database = Database(folder)
                servers = [Server(binaries, [f"--store={database.url()}", "--cluster"]) for _ in range(count)]
                row(repeat, f"PostgreSQL servers {count}", servers)
                for server in servers:
                    server.end(signal.SIGKILL)
                database.stop()


def packet(kind, *arguments):
    body = b"\0".join(arguments)
    return b"\0REQ" + struct.pack(">II", kind, len(body)) + body


def read_packet(s):
    head = b""
    while len(head) < 12:
        part = s.recv(12 - len(head))
        if not part:
            raise OSError("closed")
        head += part
    kind, length = struct.unpack(">II", head[4:])
    body = b""
    while len(body) < length:
        part = s.recv(length - len(body))
        if not part:
            raise OSError("closed")
        body += part
    return kind, body


def submit(port, function, count, payload=b"x"):
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.settimeout(30)
        s.sendall(packet(18, function, b"", payload) * count)
        for _ in range(count):
            assert read_packet(s)[0] == 8


class Worker:
    """Takes jobs of a function; notes when it got each. `hold` keeps the first one until it is set."""

    def __init__(self, port, function, hold=None):
        self.port, self.function, self.hold, self.got, self.ended = port, function, hold, [], None
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            self.socket.sendall(packet(1, self.function))
            while True:
                self.socket.sendall(packet(9))
                kind, body = read_packet(self.socket)
                if kind == 10:
                    self.socket.sendall(packet(4))
                    read_packet(self.socket)
                elif kind == 11:
                    self.got.append(time.monotonic())
                    if self.hold:
                        self.hold.wait()
                        self.ended = time.monotonic()
                    self.socket.sendall(packet(13, body.split(b"\0")[0], b""))
        except OSError:
            pass


class Submitter:
    """Submits one durable job after the other, to the next server where one doesn't answer within a
    second; notes the longest time without an answer."""

    def __init__(self, ports):
        self.ports, self.longest, self.errors, self.count, self.stopping = ports, 0, 0, 0, False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        at, last = 0, time.monotonic()
        while not self.stopping:
            try:
                with socket.create_connection(("127.0.0.1", self.ports[at % len(self.ports)]), 1) as s:
                    s.settimeout(1)
                    while not self.stopping:
                        s.sendall(packet(18, b"gap", b"", b"x"))
                        kind, _ = read_packet(s)
                        if kind == 8:
                            now = time.monotonic()
                            self.longest, last = max(self.longest, now - last), now
                            self.count += 1
                        else:
                            self.errors += 1
            except OSError:
                at += 1
                time.sleep(0.005)


def times(arguments):
    binaries, repeats = arguments
    backlog = 2000
    print("repeat,fault,first_job_ms,last_job_ms,longest_gap_ms,error_answers", flush=True)
    for repeat in range(int(repeats)):
        for fault in ["killed", "stopped", "SIGTERM"]:
            with tempfile.TemporaryDirectory() as folder:
                database = Database(folder)
                servers = [Server(binaries, [f"--store={database.url()}", "--cluster"]) for _ in range(3)]
                one, two, three = servers
                submitters = [Submitter([it.port for it in servers[n:] + servers[:n]]) for n in range(3)]
                submit(one.port, b"f", 1, b"running")
                hold = threading.Event()
                busy = Worker(one.port, b"f", hold)
                until(lambda: busy.got)
                submit(one.port, b"f", backlog)
                workers = [Worker(it.port, b"f") for it in [two, three]]
                time.sleep(1.2)
                began = time.monotonic()
                if fault == "SIGTERM":
                    one.process.send_signal(signal.SIGTERM)
                    time.sleep(0.5)
                    hold.set()
                    until(lambda: busy.ended)
                    began = busy.ended
                else:
                    one.process.send_signal(signal.SIGKILL if fault == "killed" else signal.SIGSTOP)
                # Killed and stopped: the running one, too.
                wanted = backlog + (fault != "SIGTERM")
                got = lambda: sorted(at for it in workers for at in it.got)
                until(lambda: len(got()) >= wanted)
                first, last = got()[0] - began, got()[-1] - began
                for it in submitters:
                    it.stopping = True
                for it in submitters:
                    it.thread.join(3)
                gap = max(it.longest for it in submitters)
                errors = sum(it.errors for it in submitters)
                print(f"{repeat},{fault},{first * 1e3:.0f},{last * 1e3:.0f},{gap * 1e3:.0f},{errors}", flush=True)
                for server in servers:
                    server.end()
                database.stop()


{"submits": submits, "idle": idle, "times": times}[sys.argv[1]](sys.argv[2:])
