//! The bounds of the process that reads a file, and the clock of the one that cuts its text. The one rule: they are set before a byte
//! of the file is looked at.

use std::time::Duration;

/// Binds this process: in time and memory, to the files it has open, and to the life of its parent.
///
/// # Errors
/// The operating system refuses.
pub(super) fn bind(time: Duration, memory_bytes: u64, parent: u32) -> std::io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        end_with(parent)?;
        close_what_was_inherited()?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = parent;
    // Where the memory of the machine runs out, it is this process that goes.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let seconds = time.as_secs().max(1);
    limit(libc::RLIMIT_AS, size().saturating_add(memory_bytes))?;
    limit(libc::RLIMIT_CPU, seconds)?;
    // No image of the file's text, no file, no socket: nothing but what is open already.
    limit(libc::RLIMIT_CORE, 0)?;
    limit(libc::RLIMIT_FSIZE, 0)?;
    limit(libc::RLIMIT_NOFILE, 3)
}

/// For how long the thread that asks has computed.
#[expect(unsafe_code, reason = "the crates with a safe form change the features of libc for all")]
pub(super) fn computed() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is good for the call. Where there is no such clock, the time stays zero.
    let _ = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default());
    seconds + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
}

/// The addresses that the program itself takes.
fn size() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split(' ').next().and_then(|pages| pages.parse::<u64>().ok()));
    pages.unwrap_or_default().saturating_mul(4096)
}

#[cfg(target_os = "linux")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_os = "linux"))]
type Resource = libc::c_int;

#[expect(unsafe_code, reason = "the crates with a safe form change the features of libc for all")]
fn limit(resource: Resource, most: u64) -> std::io::Result<()> {
    let (soft, mut hard) = (most, most);
    if resource == libc::RLIMIT_CPU {
        // The first says what it is; the second would only kill.
        hard += 1;
    }
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the pointer is good for the call, and the call changes nothing of ours.
    let refused = unsafe { libc::setrlimit(resource, &raw const limit) } != 0;
    if refused { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Has Linux end this process when its parent ends.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the crates with a safe form change the features of libc for all")]
fn end_with(parent: u32) -> std::io::Result<()> {
    // SAFETY: plain numbers go in.
    let refused = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0;
    if refused {
        return Err(std::io::Error::last_os_error());
    }
    // It may have ended before it was said.
    if std::os::unix::process::parent_id() == parent {
        Ok(())
    } else {
        Err(std::io::Error::other("whoever asked is gone"))
    }
}

/// Closes whatever whoever started the server had left open for it.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the crates with a safe form change the features of libc for all")]
fn close_what_was_inherited() -> std::io::Result<()> {
    let (first, last, flags): (libc::c_uint, libc::c_uint, libc::c_uint) =
        (3, libc::c_uint::MAX, 0);
    // SAFETY: plain numbers go in, and this process has opened nothing beyond the three standard streams.
    let refused = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } != 0;
    let error = std::io::Error::last_os_error();
    // Linux has it since 5.9.
    if refused && error.raw_os_error() != Some(libc::ENOSYS) { Err(error) } else { Ok(()) }
}
