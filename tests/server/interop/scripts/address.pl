# What job_servers takes for `HOST:PORT`, or for `HOST:PORT,KEY,CERTIFICATE,CA`, which is TLS.
use strict;
use warnings;

sub job_server {
    my ($address, $key, $certificate, $ca) = split /,/, shift;
    return $address unless $ca;
    my ($host, $port) = split /:/, $address;
    return {
        host      => $host,
        port      => $port,
        use_ssl   => 1,
        ca_file   => $ca,
        cert_file => $certificate,
        key_file  => $key,
    };
}

1;
