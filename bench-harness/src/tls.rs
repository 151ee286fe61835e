//! What TLS costs: the same loads on the same server, plain and over TLS 1.3.
//!
//! Full handshakes are compared with the server's half of the same handshakes in
//! this process, without a socket: on the server's core, while no server runs.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{self, Ticketer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use crate::bench_target::BenchTarget;
use crate::certificates::{Certificates, HOST};
use crate::process::{Persistence, Pinned, thread_cpu_us};
use crate::sample::{Sample, Status};
use crate::scenario::STEADY;

/// What a load's name ends with at a point without TLS, and at one with it.
pub(crate) const PLAIN: &str = ", plain";
pub(crate) const SECURED: &str = ", TLS";
/// Full handshakes, and what the report compares them with.
pub(crate) const HANDSHAKES: &str = "connect, TLS";
pub(crate) const IN_PROCESS: &str = "handshakes in process";
const RESUMED: &str = "connect, TLS resumed";

/// Of more clients, some would wait: the load generator opens 32 connections at a time.
const CONNECT: &str = "--mode=connect --clients=32 --workers=0";
/// Succeeds if the server speaks TLS.
const PROBE: &str = "--mode=connect --clients=1 --workers=0 --jobs=1";

/// A fresh server and a sample for each load, plain and over TLS; `sleeping` connections sleep, and
/// `payloads` have 64 MiB.
pub(crate) fn samples(target: &BenchTarget<'_>, sleeping: usize, payloads: u64) -> Vec<Sample> {
    let certificates = match Certificates::new() {
        Ok(certificates) => certificates,
        Err(error) => return vec![Sample::or_failed(Err(error))],
    };
    let secured = BenchTarget { certificates: Some(&certificates), ..*target };
    let load = |target: &BenchTarget<'_>, words: &str, resumes: bool| {
        let mut load = target.plan(words)?;
        load.tls_no_resumption = target.certificates.is_some() && !resumes;
        target.with_server(Persistence::Memory, 1, |server| target.load(server, &load))
    };
    if target.contender.is_gearmand() && load(&secured, PROBE, false).is_err() {
        // Builds without TLS know the option, too, and serve in plaintext.
        let why = "its build speaks no TLS, whatever --ssl says";
        return vec![Sample::without(Status::Absent, why)];
    }
    let large = format!("--clients=1 --workers=1 --size=64m --jobs={payloads}");
    let idle = format!("--clients=1 --workers=1 --idle-workers={}", sleeping - 2);
    let loads = [("steady", STEADY), ("64 MiB", &large), ("sleepers", &idle), ("connect", CONNECT)];
    let mut samples = Vec::new();
    for (name, words) in loads {
        samples.push((format!("{name}{PLAIN}"), load(target, words, false)));
        samples.push((format!("{name}{SECURED}"), load(&secured, words, false)));
    }
    samples.push((RESUMED.to_owned(), load(&secured, CONNECT, true)));
    samples.push((IN_PROCESS.to_owned(), in_process(target, &certificates)));
    let samples = samples.into_iter().enumerate();
    samples.map(|(at, (point, sample))| Sample::or_failed(sample).at(point, at as f64)).collect()
}

/// Full handshakes in memory: the time is what the server's half of them takes.
fn in_process(target: &BenchTarget<'_>, certificates: &Certificates) -> Result<Sample> {
    let _pinned = Pinned::to(&target.cores.server);
    let (client, server) = configs(certificates)?;
    let (start, mut count, mut used_us) = (Instant::now(), 0, 0.0);
    while start.elapsed() < target.options.duration() {
        used_us += handshake_us(&client, &server)?;
        count += 1;
    }
    let sample = Sample::of(count, used_us / 1e6);
    Ok(Sample { cpu_us_per_job: Some(used_us / count as f64), ..sample })
}

fn configs(certificates: &Certificates) -> Result<(Arc<ClientConfig>, Arc<ServerConfig>)> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates.ca())?)?;
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.resumption = Resumption::disabled();
    let chain = vec![CertificateDer::from_pem_file(certificates.certificate())?];
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(certificates.key())?)?;
    server.ticketer = Ticketer::new()?;
    Ok((Arc::new(client), Arc::new(server)))
}

/// What the server's half of one handshake takes, µs.
fn handshake_us(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<f64> {
    let mut client = ClientConnection::new(Arc::clone(client), ServerName::try_from(HOST)?)?;
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    client.write_tls(&mut to_server)?;
    let start_us = thread_cpu_us();
    let mut server = ServerConnection::new(Arc::clone(server))?;
    let mut used_us = thread_cpu_us() - start_us;
    while client.is_handshaking() || server.is_handshaking() {
        let start_us = thread_cpu_us();
        while !to_server.is_empty() {
            let taken = server.read_tls(&mut &to_server[..])?;
            to_server.drain(..taken);
            server.process_new_packets().context("the server's half of a handshake")?;
        }
        while server.wants_write() {
            server.write_tls(&mut to_client)?;
        }
        used_us += thread_cpu_us() - start_us;
        while !to_client.is_empty() {
            let taken = client.read_tls(&mut &to_client[..])?;
            to_client.drain(..taken);
            client.process_new_packets().context("the client's half of a handshake")?;
        }
        while client.wants_write() {
            client.write_tls(&mut to_server)?;
        }
    }
    Ok(used_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_with_new_certificates_takes_time() {
        let (client, server) = configs(&Certificates::new().unwrap()).unwrap();
        assert!(handshake_us(&client, &server).unwrap() > 0.0);
    }
}
