//! Whether somebody asked the program to end: Ctrl-C or SIGTERM. Limits: it says so once; what then ends is the
//! command's own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

/// Set once the program was asked to end.
#[derive(Debug, Clone, Default)]
pub struct Flag(Arc<AtomicBool>);

impl Flag {
    /// Whether the end was asked for.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A flag that Ctrl-C and SIGTERM set, instead of killing the program. Whoever asks a second time does not want to wait:
/// that ends the program at once.
///
/// # Errors
/// The signals cannot be taken.
pub fn flag() -> io::Result<Flag> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let flag = Flag::default();
    let set = flag.clone();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if set.0.swap(true, Ordering::AcqRel) {
                    std::process::abort();
                }
            }
        });
    })?;
    Ok(flag)
}
