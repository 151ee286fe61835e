# A client that does what its second argument says and writes what it gets, line by line.
use strict;
use warnings;
use FindBin;
use Gearman::Client;
require "$FindBin::Bin/address.pl";

$| = 1;
my ($server, $what, $argument) = @ARGV;
my $exceptions = ($argument || '') eq 'exceptions';
my $client = Gearman::Client->new(job_servers => [job_server($server)], exceptions => $exceptions);

sub callbacks {
    return (
        on_status    => sub { print "status $_[0]/$_[1]\n" },
        on_complete  => sub { print "complete ${$_[0]}\n" },
        on_fail      => sub { print "fail\n" },
        on_exception => sub { print "exception $_[0]\n" },
    );
}

if ($what eq 'do') {
    my $result = $client->do_task('reverse', $argument);
    print "$$result\n";
}
elsif ($what eq 'callbacks') {
    for my $function (qw(steps fail explode timed)) {
        my $tasks = $client->new_task_set;
        $tasks->add_task($function, 'x', {callbacks()});
        $tasks->wait;
    }
}
elsif ($what eq 'same-key') {
    my $tasks = $client->new_task_set;
    for my $n (1, 2) {
        $tasks->add_task('reverse', 'abc', {uniq => 'the-key', callbacks()});
    }
    $tasks->wait;
}
elsif ($what eq 'priorities') {
    $client->dispatch_background('reverse', 'low', {priority => 'low'});
    $client->dispatch_background('reverse', 'normal');
    $client->dispatch_background('reverse', 'high', {priority => 'high'});
}
elsif ($what eq 'tasks') {
    my %results;
    my $tasks = $client->new_task_set;
    for my $n (1 .. $argument) {
        $tasks->add_task('reverse', "task-$n",
            {on_complete => sub { $results{scalar reverse ${$_[0]}} = 1 }});
    }
    $tasks->wait;
    print 'ran ', scalar(keys %results), "\n";
}
elsif ($what eq 'flood') {
    $client->dispatch_background('count', $_) for 1 .. $argument;
    print "submitted\n";
}
elsif ($what eq 'deaths') {
    $client->do_task('die', $_) for 1 .. $argument;
    print ${$client->do_task('reverse', 'alive')}, "\n";
}
elsif ($what eq 'large') {
    my $payload = '0123456789abcdef' x ($argument / 16);
    my $result = $client->do_task('reverse', $payload);
    print $$result eq reverse($payload) ? 'same ' : 'different ', length($$result), "\n";
}
elsif ($what eq 'background') {
    my $handle = $client->dispatch_background('reverse', 'x', {uniq => 'k'});
    my $status = $client->get_status($handle);
    print 'known ', $status->known, ' running ', $status->running, "\n";
    print "waiting\n";
    1 while $client->get_status($handle)->known;
    print "done\n";
}
