//! What the system tells the program: to end (Ctrl-C, SIGTERM), or to look again (SIGHUP). Limits: it says so; what then
//! ends or is looked at is the command's own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

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
/// that ends the program at once. SIGHUP still kills.
///
/// # Errors
/// The signals cannot be taken.
pub fn flag() -> io::Result<Flag> {
    take(None::<fn()>)
}

/// The same, and `look` at each SIGHUP.
///
/// # Errors
/// The signals cannot be taken.
pub fn flag_and_hangups(look: impl Fn() + Send + 'static) -> io::Result<Flag> {
    take(Some(look))
}

/// SIGHUP is taken only where somebody looks: a signal that is taken kills no more.
fn take(look: Option<impl Fn() + Send + 'static>) -> io::Result<Flag> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate, hangup) = {
        let _inside = runtime.enter();
        let hangup = look.as_ref().map(|_| signal(SignalKind::hangup())).transpose()?;
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, hangup)
    };
    let mut looking = look.zip(hangup);
    let flag = Flag::default();
    let set = flag.clone();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => set.end(),
                    _ = terminate.recv() => set.end(),
                    () = hung_up(&mut looking) => {}
                }
            }
        });
    })?;
    Ok(flag)
}

/// Looks at the next SIGHUP; never ends where nobody looks.
async fn hung_up(looking: &mut Option<(impl Fn(), Signal)>) {
    match looking {
        Some((look, hangup)) => {
            hangup.recv().await;
            look();
        }
        None => std::future::pending().await,
    }
}
