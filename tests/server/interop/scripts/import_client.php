<?php
// The clients of the classic tutorial: background, background tasks, the three foreground calls.

$client = new GearmanClient();
$client->addServer($argv[1], $argv[2]);

$handle = $client->doBackground('import', json_encode(array('file' => 'a.csv', 'rows' => 1)));
if ($client->returnCode() != GEARMAN_SUCCESS) {
    exit("bad return code\n");
}
do {
    $status = $client->jobStatus($handle);
} while ($status[0]);
echo "background done\n";

for ($n = 0; $n < 3; $n++) {
    $client->addTaskBackground('import', json_encode(array('file' => "b$n.csv", 'rows' => $n)));
}
if (!$client->runTasks()) {
    exit('ERROR ' . $client->error() . "\n");
}
echo "tasks accepted\n";

echo $client->doNormal('import', json_encode(array('file' => 'c.csv', 'rows' => 2))), "\n";
echo $client->doHigh('import', json_encode(array('file' => 'd.csv', 'rows' => 3))), "\n";
echo $client->doLow('import', json_encode(array('file' => 'e.csv', 'rows' => 4))), "\n";
