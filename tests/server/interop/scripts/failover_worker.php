<?php
// `failover_worker.php HOST:PORT,HOST:PORT,... FUNCTION`: reverses what it gets and says what that
// was. A server that is gone is no reason to end.

$worker = new GearmanWorker();
foreach (explode(',', $argv[1]) as $server) {
    list($host, $port) = explode(':', $server);
    try {
        $worker->addServer($host, $port);
    } catch (GearmanException $e) {
        // It is listed all the same; only its answer to an option that is sent at once is missing.
    }
}
$worker->addFunction($argv[2], function ($job) {
    echo "run {$job->workload()}\n";
    return strrev($job->workload());
});
echo "ready\n";
while (true) {
    if (!@$worker->work()) {
        // None of the servers can be reached just now.
        usleep(20000);
    }
}
