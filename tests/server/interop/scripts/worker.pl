# A worker with a function for each way in which a job can go. Says what it does, line by line.
# `worker.pl SERVER [stuck]`: a stuck one takes a job and never finishes it.
use strict;
use warnings;
use FindBin;
use Gearman::Worker;
require "$FindBin::Bin/address.pl";

$| = 1;
my ($server, $mode) = @ARGV;
my $worker = Gearman::Worker->new(job_servers => [job_server($server)], client_id => 'perl-worker');
$worker->register_function(
    reverse => sub {
        my $job = shift;
        print 'run ', length($job->arg) < 80 ? $job->arg : 'much', "\n";
        if ($mode && $mode eq 'stuck') {
            select(undef, undef, undef, undef);
        }
        return scalar reverse $job->arg;
    }
);
my $count = 0;
$worker->register_function(
    count => sub {
        print "count $count\n" if ++$count % 1000 == 0;
        return 1;
    }
);
$worker->register_function(
    steps => sub {
        my $job = shift;
        $job->set_status(1, 2);
        $job->set_status(2, 2);
        return 'end';
    }
);
$worker->register_function(fail    => sub { return undef });
# gearmand answers the WORK_FAIL that follows a dying handler's WORK_EXCEPTION, and the worker ends.
$worker->register_function(die => sub { die "every time\n" });
# This sends the WORK_EXCEPTION alone.
$worker->register_function(
    explode => sub {
        $worker->send_work_exception(shift, 'boom');
        return undef;
    }
);
$worker->register_function(timed   => 5, sub { return 'in time' });
print "ready\n";
$worker->work while 1;
