# A worker for one function, whose jobs all go wrong in one way; it notes each run in a file.
# `outcomes.pl SERVER FUNCTION WAY FILE`
use strict;
use warnings;
use Gearman::Worker;

my ($server, $function, $way, $file) = @ARGV;
my $worker = Gearman::Worker->new(job_servers => [$server], client_id => 'outcomes');
$worker->register_function(
    $function => sub {
        open(my $runs, '>>', $file) or die "no $file";
        print $runs "run\n";
        close $runs;
        die "boom\n" if $way eq 'die';
        return undef;
    }
);
# It ends when the server says what this worker doesn't expect.
$worker->work;
