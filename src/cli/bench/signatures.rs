//! What signatures cost on this machine, in this process, beside what is measured: one verified, one made. Limits: Ed25519,
//! with which everybody here signs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use super::BenchError;
use super::stats::Spread;
use crate::authorize::jose::{Algorithm, Jws, PublicKey, TokenKind};
use crate::cli::issue;

const SLICES: usize = 9;
const SLICE: Duration = Duration::from_millis(20);

/// Microseconds of one processor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Signatures {
    /// To verify one.
    pub(super) verify_us: f64,
    /// To make one, the few bytes around it included.
    pub(super) sign_us: f64,
}

/// Measures both.
pub(super) fn measure() -> Result<Signatures, BenchError> {
    let key = issue::generate(Algorithm::EdDsa, None)?;
    let claims = json!({ "about": "the size of a proof. ".repeat(20) });
    let token = key.sign(TokenKind::WorkloadProof, &claims)?;
    let jws = Jws::parse(token.as_bytes(), TokenKind::WorkloadProof).map_err(|_| BenchError::Own)?;
    let public = key.public_jwk();
    let public = public.as_object().and_then(|jwk| PublicKey::from_jwk(jwk).ok()).ok_or(BenchError::Own)?;
    if !public.verify(Algorithm::EdDsa, jws.signing_input(), jws.signature()) {
        return Err(BenchError::Own);
    }
    let verify_us = each(|| {
        black_box(public.verify(
            Algorithm::EdDsa,
            black_box(jws.signing_input()),
            black_box(jws.signature()),
        ));
    });
    let nothing = json!({});
    let sign_us = each(|| {
        black_box(key.sign(TokenKind::WorkloadProof, black_box(&nothing)).is_ok());
    });
    Ok(Signatures { verify_us, sign_us })
}

/// The median of several slices of time, in microseconds of processor time: whoever else has the machine is not counted,
/// as in what a record costs.
fn each(mut once: impl FnMut()) -> f64 {
    let slices = (0..SLICES).map(|_| {
        let (begun, spent, mut times) = (Instant::now(), on_processor(), 0_u32);
        while begun.elapsed() < SLICE {
            once();
            times += 1;
        }
        let took = match (spent, on_processor()) {
            (Some(before), Some(after)) if after > before => after.saturating_sub(before),
            _ => begun.elapsed(),
        };
        took.as_secs_f64() * 1e6 / f64::from(times)
    });
    Spread::of(slices).map_or(f64::NAN, |spread| spread.median)
}

/// The time that this thread has spent on a processor, where the system tells.
fn on_processor() -> Option<Duration> {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    told.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}
