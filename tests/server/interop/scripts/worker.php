<?php
// A worker with a function for each way in which a job can go. Says what it does, line by line.
// `worker.php HOST PORT [stuck]`: a stuck one takes a job and never finishes it.

$stuck = isset($argv[3]) && $argv[3] == 'stuck';
$worker = new GearmanWorker();
$worker->addServer($argv[1], $argv[2]);
$worker->setId('php-worker');

$worker->addFunction('reverse', function ($job) use ($stuck) {
    echo 'run ', strlen($job->workload()) < 80 ? $job->workload() : 'much', "\n";
    if ($stuck) {
        fgets(STDIN) === false && stream_select_forever();
    }
    return strrev($job->workload());
});
$worker->addFunction('count', function ($job) {
    static $count = 0;
    $count++;
    if ($count % 1000 == 0) {
        echo "count $count\n";
    }
});
$worker->addFunction('steps', function ($job) {
    $job->sendData('one');
    $job->sendStatus(1, 2);
    $job->sendWarning('careful');
    $job->sendData('two');
    return 'end';
});
$worker->addFunction('fail', function ($job) {
    $job->sendFail();
});
$worker->addFunction('explode', function ($job) {
    $job->sendException('boom');
});
$worker->addFunction('unique', function ($job) {
    return $job->unique() . ' of ' . $job->functionName();
});

function stream_select_forever()
{
    $pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
    $read = array($pair[0]);
    $none = null;
    stream_select($read, $none, $none, null);
}

echo "ready\n";
while (@$worker->work() || $worker->returnCode() == GEARMAN_WORK_FAIL
    || $worker->returnCode() == GEARMAN_WORK_EXCEPTION);
echo 'stopped: ', $worker->error(), "\n";
