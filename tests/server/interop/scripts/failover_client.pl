# `failover_client.pl HOST:PORT,HOST:PORT,... FUNCTION TEXT`: writes what the worker makes of it.
use strict;
use warnings;
use Gearman::Client;

my ($servers, $function, $text) = @ARGV;
my $client = Gearman::Client->new(job_servers => [split /,/, $servers]);
my $result = $client->do_task($function, $text, {timeout => 15});
print defined $result ? $$result : 'failed', "\n";
