"""A worker with a function for each way in which a job can go. Says what it does, line by line."""

import signal
import sys

import gear

# `HOST`, or `HOST,KEY,CERTIFICATE,CA` for TLS.
host, *files = sys.argv[1].split(",")
port, mode = int(sys.argv[2]), sys.argv[3]


def say(text):
    print(text, flush=True)


worker = gear.Worker("python-worker")
worker.addServer(host, port, *files)
worker.waitForServer()
for name in ["reverse", "count", "steps", "fail", "explode"]:
    worker.registerFunction(name)
worker.registerFunction("timed", b"5000")
say("ready")

count = 0
while True:
    job = worker.getJob()
    data = bytes(job.arguments)
    if job.name == "reverse":
        say("run " + (data.decode() if len(data) < 80 else "much"))
        if mode == "stuck":
            signal.pause()
        job.sendWorkComplete(data[::-1])
    elif job.name == "count":
        count += 1
        job.sendWorkComplete()
        if count % 100 == 0:
            say(f"count {count}")
    elif job.name == "steps":
        job.sendWorkData(b"one")
        job.sendWorkStatus(1, 2)
        job.sendWorkWarning(b"careful")
        job.sendWorkComplete(b"end")
    elif job.name == "fail":
        job.sendWorkFail()
    elif job.name == "explode":
        job.sendWorkException(b"boom")
    elif job.name == "timed":
        job.sendWorkComplete(b"in time")
