<?php
// A worker for one function, whose jobs all go wrong in one way; it notes each run in a file.
// `outcomes.php HOST PORT FUNCTION WAY FILE`

list(, $host, $port, $function, $way, $file) = $argv;
$worker = new GearmanWorker();
$worker->addServer($host, $port);
$worker->setId('outcomes');
$worker->addFunction($function, function ($job) use ($way, $file) {
    file_put_contents($file, "run\n", FILE_APPEND);
    switch ($way) {
        case 'fail':
            return $job->sendFail();
        case 'exception':
            return $job->sendException('boom');
        case 'throw':
            throw new Exception('boom');
        case 'exit':
            exit(1);
        case 'return-false':
            return false;
        case 'killed':
            $pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
            $read = array($pair[0]);
            $none = null;
            stream_select($read, $none, $none, null);
    }
});
while (@$worker->work() || $worker->returnCode() == GEARMAN_WORK_FAIL
    || $worker->returnCode() == GEARMAN_WORK_EXCEPTION);
