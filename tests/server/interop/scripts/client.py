"""A client that does what its third argument says and writes what it gets, line by line."""

import sys
import threading

import gear

# `HOST`, or `HOST,KEY,CERTIFICATE,CA` for TLS.
host, *files = sys.argv[1].split(",")
port, what = int(sys.argv[2]), sys.argv[3]
argument = sys.argv[4] if len(sys.argv) > 4 else ""


def say(text):
    print(text, flush=True)


class Client(gear.Client):
    """Counts what is done, and tells everything if it is to."""

    def __init__(self, telling):
        super().__init__("python-client")
        self.telling = telling
        self.done = threading.Semaphore(0)
        self.addServer(host, port, *files)
        self.waitForServer()

    def tell(self, text):
        if self.telling:
            say(text)

    def handleWorkData(self, packet):
        job = super().handleWorkData(packet)
        self.tell("data " + packet.getArgument(1, True).decode())
        return job

    def handleWorkWarning(self, packet):
        job = super().handleWorkWarning(packet)
        self.tell("warning " + packet.getArgument(1, True).decode())
        return job

    def handleWorkStatus(self, packet):
        job = super().handleWorkStatus(packet)
        self.tell(f"status {job.numerator.decode()}/{job.denominator.decode()}")
        return job

    def handleWorkComplete(self, packet):
        job = super().handleWorkComplete(packet)
        self.tell("complete " + packet.getArgument(1, True).decode())
        self.done.release()
        return job

    def handleWorkFail(self, packet):
        job = super().handleWorkFail(packet)
        self.tell("fail")
        self.done.release()
        return job

    def handleWorkException(self, packet):
        job = super().handleWorkException(packet)
        self.tell("exception " + packet.getArgument(1, True).decode())
        self.done.release()
        return job


def submit(client, function, data, unique=None, **options):
    job = gear.TextJob(function, data, unique=unique)
    client.submitJob(job, **options)
    return job


client = Client(what == "callbacks")
if what == "do":
    job = submit(client, "reverse", argument)
    client.done.acquire()
    say("".join(job.data))
elif what == "callbacks":
    if argument == "exceptions":
        client.setOption("exceptions")
    for function in ["steps", "fail", "explode", "timed"]:
        submit(client, function, "x")
        client.done.acquire()
elif what == "priorities":
    submit(client, "reverse", "low", precedence=gear.PRECEDENCE_LOW, background=True)
    submit(client, "reverse", "normal", background=True)
    submit(client, "reverse", "high", precedence=gear.PRECEDENCE_HIGH, background=True)
elif what == "tasks":
    jobs = [submit(client, "reverse", f"task-{n}") for n in range(int(argument))]
    for job in jobs:
        client.done.acquire()
    say(f"ran {sum(job.complete and not job.failure for job in jobs)}")
elif what == "flood":
    for n in range(int(argument)):
        submit(client, "count", str(n), background=True)
    say("submitted")
elif what == "large":
    payload = b"0123456789abcdef" * (int(argument) // 16)
    job = gear.Job("reverse", payload)
    client.submitJob(job)
    client.done.acquire()
    result = b"".join(job.data)
    say(f"{'same' if result == payload[::-1] else 'different'} {len(result)}")
elif what == "admin":
    connection = client.getConnection()
    job = submit(client, "reverse", "x", unique="key", background=True)
    for request in [
        gear.StatusAdminRequest(),
        gear.ShowUniqueJobsAdminRequest(),
        gear.CancelJobAdminRequest(job.handle.decode()),
        gear.StatusAdminRequest(),
        gear.WorkersAdminRequest(),
    ]:
        connection.sendAdminRequest(request)
        say(repr(request.response.decode()))
client.shutdown()
