"""A worker for one function, whose jobs all go wrong in one way; it notes each run in a file.

`outcomes.py HOST PORT FUNCTION WAY FILE`
"""

import signal
import sys

import gear

host, port, function, way, file = sys.argv[1:]
worker = gear.Worker("outcomes")
worker.addServer(host, int(port))
worker.waitForServer()
worker.registerFunction(function)
while True:
    job = worker.getJob()
    with open(file, "a") as runs:
        runs.write("run\n")
    if way == "fail":
        job.sendWorkFail()
    elif way == "exception":
        job.sendWorkException(b"boom")
    elif way == "raise":
        # Its threads would keep the process.
        worker.shutdown()
        raise RuntimeError("boom")
    elif way == "killed":
        signal.pause()
