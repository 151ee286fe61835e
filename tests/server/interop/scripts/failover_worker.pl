# `failover_worker.pl HOST:PORT,HOST:PORT,... FUNCTION`: reverses what it gets and says what that
# was. A server that is gone is no reason to end.
use strict;
use warnings;
use Gearman::Worker;

$| = 1;
my ($servers, $function) = @ARGV;
my $worker = Gearman::Worker->new(job_servers => [split /,/, $servers]);
$worker->register_function(
    $function => sub {
        my $job = shift;
        print 'run ', $job->arg, "\n";
        return scalar reverse $job->arg;
    }
);
print "ready\n";
$worker->work while 1;
