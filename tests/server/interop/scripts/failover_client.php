<?php
// `failover_client.php HOST:PORT,HOST:PORT,... FUNCTION TEXT`: writes what the worker makes of it.

$client = new GearmanClient();
foreach (explode(',', $argv[1]) as $server) {
    list($host, $port) = explode(':', $server);
    try {
        $client->addServer($host, $port);
    } catch (GearmanException $e) {
        // It is listed all the same; only its answer to an option that is sent at once is missing.
    }
}
$client->setTimeout(15000);
$result = $client->doNormal($argv[2], $argv[3]);
echo $client->returnCode() == GEARMAN_SUCCESS ? $result : $client->error(), "\n";
