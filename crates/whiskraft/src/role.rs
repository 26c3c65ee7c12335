//! The roles a process can have: each module starts one, waits, and shuts it down.

pub(crate) mod dev;
pub(crate) mod invoker;
pub(crate) mod scheduler;
pub(crate) mod supervisor;

use std::net::{TcpListener, ToSocketAddrs};

use crate::exit::{Exit, Failure};

/// Binds `address` now, so that a port in use is found before anything else has started.
///
/// # Errors
/// If the address is not one of this machine or is in use; the text says which flag to change.
pub(crate) fn listen(address: &str, flag: &str) -> Result<TcpListener, Failure> {
    let refused = |error: std::io::Error| {
        let advice = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("stop the process that listens there, or choose another address with {flag}")
            }
            std::io::ErrorKind::AddrNotAvailable => {
                format!("the address is not one of this machine's; 0.0.0.0 listens on all ({flag})")
            }
            std::io::ErrorKind::PermissionDenied => format!("choose a port above 1023 with {flag}"),
            _ => format!("choose another address with {flag}"),
        };
        Failure::new(Exit::Refused, format!("cannot listen on {address}"))
            .caused_by(error)
            .advise(advice)
    };
    let resolved: Vec<_> = address.to_socket_addrs().map_err(refused)?.collect();
    let listener = TcpListener::bind(resolved.as_slice()).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_in_use_names_address_and_flag() {
        let first = listen("127.0.0.1:0", "--peer-listen").unwrap();
        let address = first.local_addr().unwrap().to_string();
        let failure = listen(&address, "--peer-listen").unwrap_err();
        assert_eq!(failure.exit(), Exit::Refused);
        let text = failure.to_string();
        assert!(
            text.contains(&address) && text.contains("--peer-listen"),
            "{text}"
        );
    }
}
