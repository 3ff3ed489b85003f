//! The two listening sockets: the service manager's, where it passed them, else our own.
//!
//! A socket that the service manager holds outlives this process, so that who connects during a restart waits instead of
//! being refused.

use std::net::{SocketAddr, TcpListener as StdTcp};
use std::os::unix::net::UnixListener as StdUnix;

use tokio::net::{TcpListener, UnixListener};

use crate::api::LocalListener;
use crate::config::{LocalListen, Server};
use crate::custody::token::{Inherited, inherited_sockets};

/// Where the Signer API and the local listener are.
pub(super) struct Sockets {
    pub(super) api: TcpListener,
    pub(super) local: LocalListener,
}

impl Sockets {
    /// Takes over what was passed and binds the rest. What was passed must be where the configuration says, so that nobody
    /// believes one of the two and has the other.
    ///
    /// # Errors
    /// What does not fit, or cannot be bound, with what would be right.
    pub(super) async fn open(server: &Server) -> Result<Self, String> {
        let passed = inherited_sockets().map_err(|error| format!("the service manager's sockets: {error}"))?;
        let (mut api, mut local) = (None, None);
        for socket in passed {
            let place = match (&*socket.name, socket.is_unix, &server.local_listen) {
                ("api", ..) => &mut api,
                ("local", ..) => &mut local,
                // Not named: there is one Unix socket at most, and TCP is told apart by its address.
                (_, true, _) => &mut local,
                (_, false, LocalListen::Tcp(address)) if address_of(&socket) == Some(*address) => &mut local,
                (_, false, _) => &mut api,
            };
            if let Some(first) = place.replace(socket) {
                return Err(format!(
                    "the service manager passed two sockets for one purpose, `{}` among them; name them with \
                     FileDescriptorName=api and FileDescriptorName=local",
                    first.name
                ));
            }
        }
        let api = match api {
            Some(socket) => taken_api(socket, server.listen)?,
            None => {
                let failed = |error| format!("server.listen: {}: {error}", server.listen);
                TcpListener::bind(server.listen).await.map_err(failed)?
            }
        };
        let local = match local {
            Some(socket) => taken_local(socket, &server.local_listen)?,
            None => LocalListener::bind(&server.local_listen)
                .await
                .map_err(|error| format!("server.local_listen: {error}"))?,
        };
        Ok(Self { api, local })
    }
}

fn taken_api(socket: Inherited, configured: SocketAddr) -> Result<TcpListener, String> {
    if socket.is_unix {
        return Err("signerd.socket listens on a Unix socket; the Signer API needs a TCP port".to_owned());
    }
    let listener = StdTcp::from(socket.socket);
    let at = listener.local_addr().map_err(|error| format!("signerd.socket: {error}"))?;
    fits(at, configured)?;
    listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener)).map_err(|error| error.to_string())
}

/// One port, and one address or all of them: a socket for IPv6 takes IPv4, too.
fn fits(at: SocketAddr, configured: SocketAddr) -> Result<(), String> {
    let same = at == configured || at.ip().is_unspecified() && configured.ip().is_unspecified();
    if at.port() == configured.port() && same {
        return Ok(());
    }
    Err(format!(
        "server.listen is {configured}, and signerd.socket listens on {at}; make them equal: `systemctl edit \
         signerd.socket` with `[Socket]`, `ListenStream=`, `ListenStream={configured}`"
    ))
}

fn taken_local(socket: Inherited, configured: &LocalListen) -> Result<LocalListener, String> {
    let unfit = |at: String| {
        let configured = match configured {
            LocalListen::Tcp(address) => address.to_string(),
            LocalListen::Unix(path) => format!("unix:{}", path.display()),
        };
        Err(format!(
            "server.local_listen is {configured}, and signerd-local.socket listens on {at}; make them equal, or \
             `systemctl mask signerd-local.socket`"
        ))
    };
    let failed = |error: std::io::Error| format!("signerd-local.socket: {error}");
    if socket.is_unix {
        let listener = StdUnix::from(socket.socket);
        let at = listener.local_addr().map_err(failed)?;
        let path = at.as_pathname().map(std::path::Path::to_owned).unwrap_or_default();
        if !matches!(configured, LocalListen::Unix(configured) if *configured == path) {
            return unfit(format!("unix:{}", path.display()));
        }
        listener.set_nonblocking(true).map_err(failed)?;
        return Ok(UnixListener::from_std(listener).map_err(failed)?.into());
    }
    let listener = StdTcp::from(socket.socket);
    let at = listener.local_addr().map_err(failed)?;
    if *configured != LocalListen::Tcp(at) {
        return unfit(at.to_string());
    }
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(TcpListener::from_std(listener).map_err(failed)?.into())
}

fn address_of(socket: &Inherited) -> Option<SocketAddr> {
    StdTcp::from(socket.socket.try_clone().ok()?).local_addr().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_the_socket_unit_is_the_one_of_the_configuration() {
        let judge = |at: &str, configured: &str| match (at.parse(), configured.parse()) {
            (Ok(at), Ok(configured)) => fits(at, configured),
            _ => panic!("{at} or {configured}"),
        };
        for (at, configured) in
            [("[::]:8443", "0.0.0.0:8443"), ("0.0.0.0:8443", "0.0.0.0:8443"), ("10.0.0.1:8443", "10.0.0.1:8443")]
        {
            assert_eq!(judge(at, configured), Ok(()), "{at} {configured}");
        }
        for (at, configured) in
            [("[::]:8443", "0.0.0.0:8444"), ("[::]:8443", "10.0.0.1:8443"), ("10.0.0.1:8443", "0.0.0.0:8443")]
        {
            let why = judge(at, configured).err().unwrap_or_default();
            assert!(why.contains(&format!("ListenStream={configured}")), "{why}");
        }
    }
}
