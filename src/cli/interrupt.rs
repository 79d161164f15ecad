//! What the system tells the program: to end (Ctrl-C, SIGTERM), or to look again (SIGHUP). Limits: it says so; what then
//! ends or is looked at is the command's own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Set once the program was asked to end.
#[derive(Debug, Clone, Default)]
pub struct Flag(Arc<AtomicBool>);

impl Flag {
    /// Whether the end was asked for.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn end(&self) {
        if self.0.swap(true, Ordering::AcqRel) {
            std::process::abort();
        }
    }
}

/// A flag that Ctrl-C and SIGTERM set, instead of killing the program. Whoever asks a second time does not want to wait:
/// that ends the program at once.
///
/// # Errors
/// The signals cannot be taken.
pub fn flag() -> io::Result<Flag> {
    let (runtime, mut interrupt, mut terminate) = taken()?;
    let flag = Flag::default();
    let set = flag.clone();
    spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => set.end(),
                    _ = terminate.recv() => set.end(),
                }
            }
        });
    })?;
    Ok(flag)
}

/// The same, and `look` at each SIGHUP, which would kill a program that does not take it.
///
/// # Errors
/// The signals cannot be taken.
pub fn flag_and_hangups(look: impl Fn() + Send + 'static) -> io::Result<Flag> {
    let (runtime, mut interrupt, mut terminate) = taken()?;
    let mut hangup = {
        let _inside = runtime.enter();
        signal(SignalKind::hangup())?
    };
    let flag = Flag::default();
    let set = flag.clone();
    spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => set.end(),
                    _ = terminate.recv() => set.end(),
                    _ = hangup.recv() => look(),
                }
            }
        });
    })?;
    Ok(flag)
}

fn taken() -> io::Result<(Runtime, Signal, Signal)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (interrupt, terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    Ok((runtime, interrupt, terminate))
}

fn spawn(wait: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("signals".to_owned()).spawn(wait).map(drop)
}
