//! Two requests of Kafka's protocol that rdkafka does not have: who coordinates a group or a transactional id, and quotas of
//! clients. Limits: version 1 of the first and 0 of the second, which Kafka 4 answers; one connection a request.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// A stopped process takes connections and never answers.
const WITHIN: Duration = Duration::from_secs(2);
const FIND_COORDINATOR: i16 = 10;
const ALTER_CLIENT_QUOTAS: i16 = 49;

/// What has a coordinator.
#[derive(Clone, Copy, Debug)]
pub enum Coordinated {
    Group,
    Transactions,
}

/// The node that coordinates it, by the word of the node at `address`; `None` where that does not say.
pub fn coordinator(address: &str, what: Coordinated, id: &str) -> Option<i32> {
    let mut body = text(id);
    body.push(match what {
        Coordinated::Group => 0,
        Coordinated::Transactions => 1,
    });
    let answer = ask(address, FIND_COORDINATOR, 1, &body)?;
    let mut answer = Fields(&answer);
    answer.i32()?;
    if answer.i16()? != 0 {
        return None;
    }
    answer.text()?;
    answer.i32().filter(|id| *id >= 0)
}

/// How many bytes a second clients of that name may write, or with `None` any number; whether the node took it.
pub fn limit_writes(address: &str, client: &str, bytes: Option<f64>) -> bool {
    let mut body = vec![0, 0, 0, 1, 0, 0, 0, 1];
    body.extend(text("client-id"));
    body.extend(text(client));
    body.extend([0, 0, 0, 1]);
    body.extend(text("producer_byte_rate"));
    body.extend(bytes.unwrap_or_default().to_be_bytes());
    body.push(u8::from(bytes.is_none()));
    // Not only to be validated.
    body.push(0);
    let Some(answer) = ask(address, ALTER_CLIENT_QUOTAS, 0, &body) else { return false };
    let mut answer = Fields(&answer);
    let (_, entries, code) = (answer.i32(), answer.i32(), answer.i16());
    (entries, code) == (Some(1), Some(0))
}

fn ask(address: &str, key: i16, version: i16, body: &[u8]) -> Option<Vec<u8>> {
    const CORRELATION: i32 = 7;
    let mut request = Vec::new();
    request.extend(key.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(CORRELATION.to_be_bytes());
    request.extend(text("countersign-tests"));
    request.extend(body);
    let mut stream = TcpStream::connect_timeout(&address.parse().ok()?, WITHIN).ok()?;
    stream.set_read_timeout(Some(WITHIN)).ok()?;
    stream.write_all(&i32::try_from(request.len()).ok()?.to_be_bytes()).ok()?;
    stream.write_all(&request).ok()?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length)).ok()?];
    stream.read_exact(&mut answer).ok()?;
    let rest = answer.strip_prefix(&CORRELATION.to_be_bytes())?;
    Some(rest.to_vec())
}

fn text(text: &str) -> Vec<u8> {
    let length = i16::try_from(text.len()).expect("a short text");
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

/// What is left of an answer.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }
    fn i16(&mut self) -> Option<i16> {
        self.take().map(i16::from_be_bytes)
    }
    fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }
    /// Passes over a text, which may be null.
    fn text(&mut self) -> Option<()> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        self.0 = self.0.get(length..)?;
        Some(())
    }
}
