<?php
// The worker of the classic tutorial: an object's method is the function; a loop is all there is.

class Importer
{
    public function import($job)
    {
        $data = json_decode($job->workload(), true);
        echo "import {$data['file']} {$data['rows']}\n";
        return json_encode(array('file' => $data['file'], 'imported' => $data['rows']));
    }
}

$worker = new GearmanWorker();
$worker->addServer($argv[1], $argv[2]);
$importer = new Importer();
$worker->addFunction('import', array($importer, 'import'));
while ($worker->work());
