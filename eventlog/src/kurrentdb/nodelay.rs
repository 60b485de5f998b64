//! Sends small messages at once, which the client forgets to ask for.
//!
//! The rule of this file: it makes connections faster or leaves them as they are, and never fails.
//!
//! `kurrentdb` 1.2 opens its connections without `TCP_NODELAY`. A request is two small messages
//! then (headers, body), the second waits until the first is acknowledged, and the other side
//! acknowledges late, since it has nothing to say yet: 40 milliseconds for every request that goes
//! alone. The client offers no way in, so the connections are looked up among this process's open
//! files. The client's source sets the option since June 2026; with the release that brings it,
//! this file goes.

/// Turns Nagle's algorithm off on this process's connections to ports that `is_ours`.
#[cfg(target_os = "linux")]
pub(super) fn hurry(is_ours: impl Fn(u16) -> bool) {
    use std::os::fd::BorrowedFd;

    let Ok(files) = std::fs::read_dir("/proc/self/fd") else { return };
    for file in files.flatten() {
        let Some(number) = file.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        #[expect(unsafe_code, reason = "a connection inside the client can be had by number only")]
        // SAFETY: the number is one that is, or just was, open, so it is not -1; it is used for two
        // calls and closed by neither. If its file is closed meanwhile, they fail; if another file
        // has taken the number, that one is asked for its peer, and at worst sends sooner.
        let file = unsafe { BorrowedFd::borrow_raw(number) };
        let socket = socket2::SockRef::from(&file);
        let peer = socket.peer_addr().ok().and_then(|peer| peer.as_socket());
        if peer.is_some_and(|peer| is_ours(peer.port()))
            && let Err(error) = socket.set_tcp_nodelay(true)
        {
            tracing::debug!(%error, "a connection to the event log keeps sending late");
        }
    }
}

/// Elsewhere open files are not listed: the connections stay as the client made them.
#[cfg(not(target_os = "linux"))]
pub(super) fn hurry(_: impl Fn(u16) -> bool) {}
