//! Every bound of the decision path, each with the harm it prevents. Limits that a person may set stand in the
//! configuration and are bounded by these.

/// Headers on a record. More would let one record buy unbounded work before anything is verified.
pub const MAX_HEADERS: usize = 64;
/// Bytes of one of the five context headers. A token is parsed and hashed whole: its size is the cost of refusing it.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Bytes of all headers together, names and values, null as 0. Bounds what is copied to dead letters and hashed.
pub const MAX_HEADER_BYTES: usize = 32 * 1024;
/// Depth of JSON, the top object being 1. Deeper text would turn recursion into a stack overflow.
pub const MAX_JSON_DEPTH: usize = 64;
/// The largest magnitude of an integer in `action`, `resource` and `workflow`: 2^53 - 1, the last that every JSON
/// reader holds exactly; past it two readers of one token would see two numbers.
pub const MAX_SAFE_INTEGER: i64 = (1 << 53) - 1;
/// The largest magnitude of a NumericDate, in seconds: 2^53, past which seconds are no longer whole.
pub const MAX_NUMERIC_DATE: f64 = 9_007_199_254_740_992.0;
/// Code points of a proof's `jti`. It is remembered, so it must be short.
pub const MAX_JTI_CHARS: usize = 128;
/// Names in `kafka.headers.names`; as many as a record may have.
pub const MAX_SIGNED_NAMES: usize = 64;
/// Nested `act`s of a Txn-Token, the outermost counted.
pub const MAX_ACT_DEPTH: usize = 8;
/// Sender, the countersignature's `sub` and its `act`s together. Bounds the policy evaluations that `parties` costs.
pub const MAX_CHAIN: usize = 8;
/// The smallest RSA modulus in bits that is taken.
pub const MIN_RSA_BITS: usize = 2048;
/// The largest RSA modulus in bits that is taken: verification costs the square of it, and a sender chooses `cnf.jwk`.
pub const MAX_RSA_BITS: usize = 8192;
/// Keys in one key set. A set is searched by `kid` and parsed whole on each change.
pub const MAX_KEYS: usize = 1024;
/// The default of `skew`, in seconds.
pub const DEFAULT_SKEW_S: u32 = 30;
/// The default of a proof's longest life, in seconds.
pub const DEFAULT_PROOF_LIFE_S: u32 = 300;
/// The default of `max_queue_time`, in seconds: a day.
pub const DEFAULT_QUEUE_TIME_S: u32 = 86_400;
/// The longest `max_queue_time`, in seconds, that a route with `trust_create_time` may have: its replay memory must
/// live that much longer.
pub const MAX_TRUSTED_QUEUE_TIME_S: u32 = 900;
/// The default life of a countersignature, in seconds.
pub const DEFAULT_RECEIPT_LIFE_S: u32 = 900;
/// Bytes of the metadata string of a committed offset; the broker refuses more than 4,096.
pub const MAX_OFFSET_METADATA: usize = 4000;
/// Evaluations of one request over HTTP. Each costs an evaluation of the policies and an audit record.
pub const MAX_EVALUATIONS: usize = 64;
/// Bytes of the body of a request over HTTP. Its parts can stand in each audit record that it makes, twice.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// Bytes of `X-Request-ID`. It is echoed, and stands in each audit record.
pub const MAX_REQUEST_ID_BYTES: usize = 128;
/// Proofs of requests over HTTP that are remembered: about 41 MB. Past that nobody is answered until some are forgotten.
pub const MAX_REQUEST_PROOFS: usize = 1_000_000;
/// Challenges that one desk remembers: asked over HTTP and open, or refused and not yet over. Each is up to about 10 KiB, so 100 MB.
/// Past that an evaluation that needs a step-up is denied without a challenge.
pub const MAX_CHALLENGES: usize = 10_000;
/// Those of one caller: or one that asks for ever new things would keep everybody else from asking a person.
pub const MAX_CHALLENGES_OF_CALLER: usize = 1_000;
/// Bytes of action, resource and workflow, as JSON, that a person is asked about over HTTP. They are kept in memory, and
/// published whole at each change; nobody reads more before approving.
pub const MAX_ASKED_BYTES: usize = 8 * 1024;
/// Certificates that a caller may present. Each may cost the check of a signature, before anybody is known.
pub const MAX_PRESENTED_CERTIFICATES: usize = 8;
/// Policies of one bundle, links of templates counted. Bounds memory and the time to load and validate.
pub const MAX_POLICIES: usize = 100_000;
/// Bytes of one policy, schema or entity file. It is parsed whole, on the path of a reload.
pub const MAX_POLICY_FILE_BYTES: usize = 64 * 1024 * 1024;
/// Brackets and `if`s of a policy within each other. Cedar's parser takes up to 20 KiB of stack for each, unchecked.
pub const MAX_POLICY_BRACKETS: usize = 64;
/// Depth of a policy's expression, chained operators counted. On a stack of 2 MiB Cedar's evaluator refuses somewhere
/// past 400, and that refusal is an evaluation error of every record.
pub const MAX_POLICY_DEPTH: usize = 256;
/// The largest `@approvals`.
pub const MAX_APPROVALS: u32 = 64;
/// The longest `@hold` and `@grant`, in seconds: 30 days.
pub const MAX_STEP_UP_S: u32 = 30 * 86_400;
/// Bytes of a value that a mapping reads as JSON. A larger one would be parsed and copied for every decision.
pub const MAX_MAPPED_VALUE_BYTES: usize = 1024 * 1024;
/// Bytes of all that the mapping of a route yields for one record, as JSON. It stands in the audit record, a workflow
/// twice, and an audit record that its topic refuses stops the partition: a sender's value must not be able to do that.
pub const MAX_MAPPED_BYTES: usize = 256 * 1024;
/// Bytes of one mapping expression. It is a person's text, but its parser recurses.
pub const MAX_EXPRESSION_BYTES: usize = 4 * 1024;
/// The upper bound of a mapping's work on one record, in nanoseconds: 50 ms. A record for which it could take longer
/// is refused unevaluated, or one sender could hold up a lane past the time-out of its transaction.
pub const MAX_MAPPING_WORK_NS: f64 = 50_000_000.0;
/// Bytes of an id that a revocation names: as long as a workload's identifier may be. It is remembered.
pub const MAX_REVOKED_ID_BYTES: usize = 2048;
/// Characters of a revocation's reason. It stands in every denial that the revocation causes.
pub const MAX_REASON_CHARS: usize = 500;
/// Identifiers of one security event's subject. Each is remembered.
pub const MAX_ALIASES: usize = 64;
/// Bytes of records that a lane takes in at once, keys, values and headers; the record that reaches it is the last. Without it a
/// few thousand records of the largest size that a topic takes would be in memory together, and more copies of them on the way
/// out.
pub const MAX_IN_HAND_BYTES: usize = 32 * 1024 * 1024;
