//! Ports on loopback that nobody listens on.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

/// Below those that systems give to outgoing connections, which could take one before its process listens.
const PORTS: Range<u16> = 20_000..32_000;

/// So many, all different. Processes that look at the same time begin at different ones.
///
/// # Errors
/// If there are not so many.
pub(super) fn free_ports(count: usize) -> io::Result<Vec<u16>> {
    let len = u32::from(PORTS.end - PORTS.start);
    let first = std::process::id().wrapping_mul(97) % len;
    let all = (0..len).map(|n| PORTS.start + u16::try_from((first + n) % len).unwrap_or(0));
    // Held until all are found.
    let free = all.filter_map(|port| Some((port, TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?)));
    let held: Vec<(u16, TcpListener)> = free.take(count).collect();
    if held.len() < count {
        let text = format!("only {} of {count} ports in {PORTS:?} are free", held.len());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_can_be_listened_on() {
        let ports = free_ports(6).unwrap();
        let listeners: Vec<_> = ports
            .iter()
            .map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)))
            .collect();
        assert!(listeners.iter().all(Result::is_ok), "{ports:?}");
    }
}
