//! A narrow way to the broker: a port of the loopback through which everything reaches it, at so many bytes a second in
//! each connection, and comes back unhindered. A gate behind it meets a destination that is slower than its source.
//! Limits: it delays and never loses; a connection ends when one of its ends does.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::BenchError;

/// Taken from a connection at once: small enough that requests of a few bytes do not wait for long.
const PIECE: usize = 16 * 1024;
const LOOK: Duration = Duration::from_millis(20);

/// The narrow way. Dropped, it takes no more connections.
pub(super) struct Slow {
    port: u16,
    over: Arc<AtomicBool>,
}

impl Slow {
    /// Opens a way to a port, of that width.
    pub(super) fn open(to: u16, bytes_a_second: u64) -> Result<Self, BenchError> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        std::thread::Builder::new().name("narrow way".to_owned()).spawn(move || {
            while !ended.load(Ordering::Acquire) {
                match listener.accept() {
                    Ok((stream, _)) => drop(connect(stream, to, bytes_a_second)),
                    Err(_) => std::thread::sleep(LOOK),
                }
            }
        })?;
        Ok(Self { port, over })
    }

    /// Where it begins.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

/// Joins two ends until one of them is closed.
fn connect(near: TcpStream, to: u16, bytes_a_second: u64) -> std::io::Result<()> {
    near.set_nonblocking(false)?;
    let far = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], to)))?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_in, far_out) = (near.try_clone()?, far.try_clone()?);
    std::thread::Builder::new().spawn(move || pass(near_in, far_out, Some(bytes_a_second)))?;
    std::thread::Builder::new().spawn(move || pass(far, near, None))?;
    Ok(())
}

/// Passes on what comes, at most so much of it a second.
fn pass(mut from: TcpStream, mut to: TcpStream, bytes_a_second: Option<u64>) {
    let mut piece = vec![0; PIECE];
    let mut free_at = Instant::now();
    while let Ok(length) = from.read(&mut piece)
        && length > 0
        && let Some(read) = piece.get(..length)
    {
        if let Some(width) = bytes_a_second {
            // What was not used while nothing came is not made up for.
            free_at = free_at.max(Instant::now()) + Duration::from_secs_f64(length as f64 / width as f64);
            std::thread::sleep(free_at.saturating_duration_since(Instant::now()));
        }
        if to.write_all(read).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_it_comes_through_and_no_faster_than_the_way_is_wide() {
        let there = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let slow = Slow::open(there.local_addr().unwrap().port(), 1_000_000).unwrap();
        let begun = Instant::now();
        let mut near = TcpStream::connect(("127.0.0.1", slow.port())).unwrap();
        let sending = std::thread::spawn(move || {
            near.write_all(&vec![7; 200_000]).unwrap();
            let mut answer = [0; 3];
            near.read_exact(&mut answer).unwrap();
            answer
        });
        let (mut far, _) = there.accept().unwrap();
        let mut read = vec![0; 200_000];
        far.read_exact(&mut read).unwrap();
        assert!(read.iter().all(|byte| *byte == 7));
        // The first piece may be there at once, and none of the others.
        assert!(begun.elapsed() >= Duration::from_millis(180), "{:?}", begun.elapsed());
        far.write_all(b"ok.").unwrap();
        assert_eq!(&sending.join().unwrap(), b"ok.");
    }
}
