<?php
// A client that does what its third argument says and writes what it gets, line by line.

$client = new GearmanClient();
$client->addServer($argv[1], $argv[2]);
list(, , , $what) = $argv;
$argument = isset($argv[4]) ? $argv[4] : '';

function say($name)
{
    return function ($task) use ($name) {
        echo "$name {$task->data()}\n";
    };
}

switch ($what) {
    case 'do':
        echo $client->doNormal('reverse', $argument), "\n";
        break;
    case 'do-unique':
        echo $client->doNormal('unique', 'x', $argument), "\n";
        break;
    case 'callbacks':
        $client->setCreatedCallback(function ($task) {
            echo "created\n";
        });
        $client->setDataCallback(say('data'));
        $client->setWarningCallback(say('warning'));
        $client->setStatusCallback(function ($task) {
            echo "status {$task->taskNumerator()}/{$task->taskDenominator()}\n";
        });
        $client->setCompleteCallback(say('complete'));
        $client->setExceptionCallback(say('exception'));
        $client->setFailCallback(function ($task) {
            echo "fail\n";
        });
        foreach (array('steps', 'fail', 'explode') as $function) {
            $client->addTask($function, 'x');
            $client->runTasks();
        }
        break;
    case 'same-key':
        $client->setCompleteCallback(say('complete'));
        $client->addTask('reverse', 'abc', null, 'the-key');
        $client->addTask('reverse', 'abc', null, 'the-key');
        $client->runTasks();
        break;
    case 'priorities':
        $client->doLowBackground('reverse', 'low');
        $client->doBackground('reverse', 'normal');
        $client->doHighBackground('reverse', 'high');
        break;
    case 'tasks':
        $results = array();
        $client->setCompleteCallback(function ($task) use (&$results) {
            $results[] = strrev($task->data());
        });
        for ($n = 0; $n < (int) $argument; $n++) {
            $client->addTask('reverse', "task-$n", null, "key-$n");
        }
        echo $client->runTasks() ? 'ran' : 'failed', ' ', count(array_unique($results)), "\n";
        break;
    case 'flood':
        for ($n = 0; $n < (int) $argument; $n++) {
            $client->doBackground('count', "$n", "key-$n");
        }
        echo "submitted\n";
        break;
    case 'large':
        $payload = str_repeat('0123456789abcdef', (int) $argument / 16);
        $result = $client->doNormal('reverse', $payload);
        echo $result === strrev($payload) ? 'same ' : 'different ', strlen($result), "\n";
        break;
    case 'status':
        $handle = $client->doBackground('reverse', 'x', 'status-key');
        echo json_encode($client->jobStatus($handle)), "\n";
        echo $client->ping('hello') ? "pong\n" : "no pong\n";
        break;
}
