//! The `traceparent` header (W3C Trace Context, section 3.2): where a record's trace goes on. Limits: untrusted; it
//! serves correlation alone and is never evidence. A malformed or doubled header counts as absent.

use super::record::Record;

/// A well-formed `traceparent`: trace id, parent span id and flags, as the sender wrote them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace, never zero.
    pub trace_id: u128,
    /// The parent span, never zero.
    pub span_id: u64,
    /// The flags byte; bit 0 is `sampled`.
    pub flags: u8,
}

impl TraceParent {
    /// The record's `traceparent`, if it has exactly one and that one is well formed.
    pub fn of(record: &Record) -> Option<Self> {
        let mut found = record.headers.iter().filter(|header| header.name.as_ref() == b"traceparent");
        let only = found.next()?;
        if found.next().is_some() {
            return None;
        }
        Self::parse(only.value.as_deref()?)
    }

    /// Reads `version-trace-parent-flags`. A later version than `00` may carry more after the flags, as the standard
    /// asks of readers; `ff` is refused.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        // Nothing that is read here lies past 55 bytes; a longer header of a later version is cut, not scanned.
        let (known, more) = bytes.split_at_checked(55)?;
        let text = std::str::from_utf8(known).ok()?;
        let mut parts = text.split('-');
        let version = hex(parts.next()?, 2)?;
        let trace_id = hex(parts.next()?, 32)?;
        let span_id = hex(parts.next()?, 16)?;
        let flags = hex(parts.next()?, 2)?;
        let extended = version != 0 && more.first() == Some(&b'-');
        if parts.next().is_some() || version == 0xff || !(more.is_empty() || extended) {
            return None;
        }
        if trace_id == 0 || span_id == 0 {
            return None;
        }
        Some(Self { trace_id, span_id: u64::try_from(span_id).ok()?, flags: u8::try_from(flags).ok()? })
    }

    /// The trace id as 32 lower-case hexadecimal digits.
    pub fn trace_id_hex(self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

/// `digits` lower-case hexadecimal digits, no more and no fewer.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let legal = text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !legal {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_well_formed_header_is_read() {
        let parent = TraceParent::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(parent.trace_id_hex(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(parent.span_id, 0x00f0_67aa_0ba9_02b7);
        assert_eq!(parent.flags, 1);
    }

    #[test]
    fn a_later_version_may_say_more_and_version_00_may_not() {
        assert!(TraceParent::parse(format!("{GOOD}-extra").as_bytes()).is_none());
        assert!(TraceParent::parse(format!("01{}-extra", &GOOD[2..]).as_bytes()).is_some());
        assert!(TraceParent::parse(format!("01{}.extra", &GOOD[2..]).as_bytes()).is_none());
    }

    #[test]
    fn what_is_malformed_is_absent() {
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            "00-4bf92f3577b34da6a3ce929d0e0e47é-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
