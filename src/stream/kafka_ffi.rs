//! What rdkafka 0.39's safe interface lacks or gets wrong, in calls to librdkafka; the only file with `unsafe`. Limits:
//! no decisions; each function says why the safe way does not do.
#![expect(unsafe_code, reason = "calls to librdkafka; each says why it is sound")]

use std::ffi::{CStr, CString, c_char};
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{BorrowedMessage, OwnedHeaders};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka_sys as sys;

use crate::authorize::ids::Topic;
use crate::authorize::record::Header;

/// What librdkafka says of a failed transaction call: its code, its words and its three flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionError {
    /// The code.
    pub code: RDKafkaErrorCode,
    /// The sentence.
    pub text: String,
    /// The producer is of no more use.
    pub fatal: bool,
    /// The same call may be made again.
    pub retriable: bool,
    /// The transaction must be aborted.
    pub must_abort: bool,
}

impl From<&rdkafka::error::RDKafkaError> for TransactionError {
    fn from(error: &rdkafka::error::RDKafkaError) -> Self {
        Self {
            code: error.code(),
            text: error.string(),
            fatal: error.is_fatal(),
            retriable: error.is_retriable(),
            must_abort: error.txn_requires_abort(),
        }
    }
}

/// Commits the open transaction. rdkafka's own `commit_transaction` first calls a `flush` that waits in slices of
/// 100 ms, whatever the broker does; librdkafka's commit flushes by itself. The producer's events must be served by
/// another thread meanwhile.
pub fn commit_transaction<C: ClientContext>(
    client: &Client<C>,
    within: Duration,
) -> Result<(), TransactionError> {
    // SAFETY: the pointer is that of a live producer, which `client` keeps alive over the call.
    let error = unsafe { sys::rd_kafka_commit_transaction(client.native_ptr(), millis(within)) };
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: a non-null result is an error object that the caller owns: it is read here and destroyed once, and the
    // string is copied before that. `rd_kafka_error_string` never returns null.
    unsafe {
        let failed = TransactionError {
            code: sys::rd_kafka_error_code(error).into(),
            text: CStr::from_ptr(sys::rd_kafka_error_string(error)).to_string_lossy().into_owned(),
            fatal: sys::rd_kafka_error_is_fatal(error) != 0,
            retriable: sys::rd_kafka_error_is_retriable(error) != 0,
            must_abort: sys::rd_kafka_error_txn_requires_abort(error) != 0,
        };
        sys::rd_kafka_error_destroy(error);
        Err(failed)
    }
}

/// Waits until every record handed to the producer has been answered; false if some had not within the time. rdkafka's
/// own `flush` waits in slices of 100 ms. The producer's events must be served by another thread meanwhile.
pub fn flush<C: ClientContext>(client: &Client<C>, within: Duration) -> bool {
    // SAFETY: the pointer is that of a live producer, which `client` keeps alive over the call.
    let result = unsafe { sys::rd_kafka_flush(client.native_ptr(), millis(within)) };
    result == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// The headers of a record, names as bytes. rdkafka's reader panics on a name that is not UTF-8, and any producer may
/// write one. A name ends at its first zero byte, since librdkafka hands out C strings: what is decided about, digested
/// and forwarded is that shorter name.
pub fn headers<'a>(message: &'a BorrowedMessage<'_>) -> Vec<(&'a [u8], Option<&'a [u8]>)> {
    let mut list = std::ptr::null_mut();
    let mut found = Vec::new();
    // SAFETY: `message` keeps the native message, its headers and all their bytes alive and unchanged; the slices
    // returned borrow from it. Each out-pointer is valid for its write, and is read only after success.
    unsafe {
        if sys::rd_kafka_message_headers(message.ptr(), &raw mut list)
            != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            return found;
        }
        let count = sys::rd_kafka_header_cnt(list);
        found.reserve(count);
        for index in 0..count {
            let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0usize);
            if sys::rd_kafka_header_get_all(list, index, &raw mut name, &raw mut value, &raw mut size)
                != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                break;
            }
            let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size));
            found.push((CStr::from_ptr(name).to_bytes(), value));
        }
    }
    found
}

/// Headers to send, names as bytes. rdkafka's builder takes names that are text only; `None` where librdkafka has no
/// memory for them.
pub fn to_send(headers: &[Header]) -> Option<OwnedHeaders> {
    let owned = OwnedHeaders::new_with_capacity(headers.len());
    let list = std::ptr::from_ref(owned.as_borrowed()).cast_mut().cast::<sys::rd_kafka_headers_t>();
    for header in headers {
        let value = header.value.as_deref();
        // SAFETY: rdkafka makes its `BorrowedHeaders` reference from the pointer to the native list, so casting back
        // gives that list; `owned` keeps it alive and nothing else uses it. Name and value are copied by the call.
        let result = unsafe {
            sys::rd_kafka_header_add(
                list,
                header.name.as_ptr().cast(),
                header.name.len().cast_signed(),
                value.map_or(std::ptr::null(), |value| value.as_ptr().cast()),
                value.map_or(0, |value| value.len().cast_signed()),
            )
        };
        if result != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
    }
    Some(owned)
}

/// The metadata of each element of a list, in its order, as bytes. rdkafka's reader panics on metadata that is not
/// UTF-8, and any tool may commit some.
pub fn metadata(list: &TopicPartitionList) -> Vec<Vec<u8>> {
    let native = list.ptr();
    // SAFETY: `list` keeps the native list alive; it holds `cnt` elements, and each metadata pointer is null or points
    // to `metadata_size` bytes.
    unsafe {
        let count = usize::try_from((*native).cnt).unwrap_or(0);
        (0..count)
            .map(|index| {
                let element = &*(*native).elems.add(index);
                if element.metadata.is_null() {
                    return Vec::new();
                }
                std::slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size).to_vec()
            })
            .collect()
    }
}

/// The offset after the last record that the client knows of, without asking a broker, which rdkafka's
/// `fetch_watermarks` does; `None` before the first fetch.
pub fn known_end<C: ClientContext>(client: &Client<C>, topic: &Topic, partition: i32) -> Option<i64> {
    let name = CString::new(topic.as_str()).ok()?;
    let (mut low, mut high) = (-1i64, -1i64);
    // SAFETY: the client and the name live over the call; both out-pointers are valid for their writes.
    let result = unsafe {
        sys::rd_kafka_get_watermark_offsets(
            client.native_ptr(),
            name.as_ptr(),
            partition,
            &raw mut low,
            &raw mut high,
        )
    };
    (result == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}

/// The consumer's member id: it loses it when its request to leave the group is on its way, which rdkafka does not tell.
/// Closing before that keeps a static member in the group until its session ends.
pub fn member_id<C: ClientContext>(client: &Client<C>) -> Option<String> {
    // SAFETY: the client lives over the call; a non-null result is a C string of the caller's, read before it is freed
    // once by librdkafka's own allocator.
    unsafe {
        let id = sys::rd_kafka_memberid(client.native_ptr());
        if id.is_null() {
            return None;
        }
        let member = text(id);
        sys::rd_kafka_mem_free(client.native_ptr(), id.cast());
        Some(member).filter(|member| !member.is_empty())
    }
}

/// A group as its coordinator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// `Stable` where no rebalance is under way.
    pub state: String,
    /// The id of each member, and what it was given: an assignment of the consumer protocol, as bytes.
    pub members: Vec<(String, Vec<u8>)>,
}

/// A group, as far as brokers answer in time; `None` where the one that knows it does not. rdkafka's `fetch_group_list` tells
/// nothing where any broker of the cluster is silent, and leaks what the others have told.
pub fn group<C: ClientContext>(client: &Client<C>, group: &str, wait: Duration) -> Option<Group> {
    let name = CString::new(group).ok()?;
    let mut list = std::ptr::null();
    // SAFETY: the client and the name live over the call, and the out-pointer is valid for its write. A non-null list is
    // the caller's until it is destroyed, once, after the last read; its counts are those of its arrays, which a count
    // above zero makes non-null, its strings end with a zero or are null, and so are its bytes where their size is zero.
    unsafe {
        sys::rd_kafka_list_groups(client.native_ptr(), name.as_ptr(), &raw mut list, millis(wait));
        if list.is_null() {
            return None;
        }
        let mut told = None;
        for at in 0..usize::try_from((*list).group_cnt).unwrap_or(0) {
            let found = &*(*list).groups.add(at);
            let is_known = found.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
            if is_known && text(found.group) == group {
                let members = (0..usize::try_from(found.member_cnt).unwrap_or(0)).map(|at| {
                    let member = &*found.members.add(at);
                    let size = usize::try_from(member.member_assignment_size).unwrap_or(0);
                    let assignment = match member.member_assignment.is_null() {
                        true => Vec::new(),
                        false => std::slice::from_raw_parts(member.member_assignment.cast(), size).to_vec(),
                    };
                    (text(member.member_id), assignment)
                });
                told = Some(Group { state: text(found.state), members: members.collect() });
            }
        }
        sys::rd_kafka_group_list_destroy(list);
        told
    }
}

/// A C string of librdkafka's; of none, nothing.
///
/// # Safety
///
/// It is null, or ends with a zero and is not changed over the call.
unsafe fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: as this function's caller promises.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

/// Sets how long the mock cluster that lives in this client waits for more members before a group's first rebalance
/// (its default is 3 s). rdkafka does not offer it. Without a mock cluster, nothing.
pub fn set_mock_rebalance_delay<C: ClientContext>(client: &Client<C>, delay: Duration) {
    // SAFETY: the handle belongs to `client`, which lives over both calls; null means that there is none.
    unsafe {
        let mock = sys::rd_kafka_handle_mock_cluster(client.native_ptr());
        if !mock.is_null() {
            sys::rd_kafka_mock_group_initial_rebalance_delay_ms(mock, millis(delay));
        }
    }
}

fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_header_that_is_not_text_can_be_sent() {
        let headers = [
            Header { name: Bytes::from_static(b"\xff\xfe"), value: Some(Bytes::from_static(b"\x00\xff")) },
            Header { name: Bytes::from_static(b"null"), value: None },
            Header { name: Bytes::from_static(b"empty"), value: Some(Bytes::new()) },
        ];
        let owned = to_send(&headers).unwrap();
        let text = rdkafka::message::Headers::try_get(&owned, 1).unwrap();
        assert_eq!((text.key, text.value), ("null", None));
        let empty = rdkafka::message::Headers::try_get(&owned, 2).unwrap();
        assert_eq!((empty.key, empty.value), ("empty", Some(&b""[..])));
        assert_eq!(rdkafka::message::Headers::count(&owned), 3);
    }

    #[test]
    fn metadata_that_is_not_text_is_read_as_bytes() {
        let mut list = TopicPartitionList::new();
        list.add_partition("t", 0);
        list.add_partition("t", 1).set_metadata("cs1.x");
        assert_eq!(metadata(&list), vec![Vec::new(), b"cs1.x".to_vec()]);
    }
}
