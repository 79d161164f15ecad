//! What one decision costs by the number of policies: the whole evaluation of a record, its context included, the index
//! alone, and Cedar over all policies beside them. `cargo bench --bench policy`.

use std::hint::black_box;

use cedar_policy::{Authorizer, Context, PolicySet, Request};
use countersign::authorize::ids::{Offset, Partition, UnixMillis, WorkloadId};
use countersign::authorize::policy::index::Index;
use countersign::authorize::policy::{
    Bundle, Entities, Facts, MessageFacts, Offer, Principal, ProvenanceFacts, SourceFile, SubjectId,
    TransactionFacts,
};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use serde_json::json;

const SCHEMA: &str = "
    entity Team;
    entity Workload in [Team];
    entity User;
    entity Account;
    entity Invoice in [Account];
    action payments;
    action pay in [payments] appliesTo { principal: Workload, resource: Invoice, context: {
        now: datetime, message: { accepted_at: datetime, topic: String }, sender: Workload,
        transaction?: { id: String, scope: Set<String>, expires_at: datetime, details?: { amount: Long } },
    } };
";
const SENDER: &str = "spiffe://example.org/agent/7";

/// Policies whose scopes name ids, in equal parts: by principal, by resource, by both, by team, by account. As many of
/// them apply to the request at 10 as at 10,000.
fn policies(count: usize) -> String {
    let policy = |i: usize| {
        let agent = format!("Workload::\"spiffe://example.org/agent/{i}\"");
        let (effect, scope, condition) = match i % 5 {
            0 => (
                "permit",
                format!("principal == {agent}, action, resource is Invoice"),
                "context has transaction",
            ),
            1 => (
                "forbid",
                format!("principal, action, resource == Invoice::\"{i}\""),
                "context.message.topic == \"x\"",
            ),
            2 => (
                "permit",
                format!("principal == {agent}, action == Action::\"pay\", resource == Invoice::\"{i}\""),
                "context has transaction && context.transaction.expires_at > context.now",
            ),
            3 => (
                "permit",
                format!("principal in Team::\"{i}\", action in Action::\"payments\", resource"),
                "context has transaction && context.transaction has details && context.transaction.details.amount < 9",
            ),
            _ => (
                "forbid",
                format!("principal, action, resource in Account::\"{i}\""),
                "context.sender != principal",
            ),
        };
        format!("@id(\"p{i}\") {effect} ({scope}) when {{ {condition} }};\n")
    };
    (0..count).map(policy).collect()
}

fn store(count: usize) -> String {
    let agents = (0..count).map(|i| {
        json!({"uid": {"type": "Workload", "id": format!("spiffe://example.org/agent/{i}")}, "attrs": {},
               "parents": [{"type": "Team", "id": (i / 5 * 5 + 1).to_string()}, {"type": "Team", "id": "3"}]})
    });
    let invoices = (0..count).map(|i| {
        json!({"uid": {"type": "Invoice", "id": i.to_string()}, "attrs": {},
               "parents": [{"type": "Account", "id": "4"}]})
    });
    serde_json::Value::Array(agents.chain(invoices).collect()).to_string()
}

fn file(name: &str, text: String) -> SourceFile {
    SourceFile { name: name.to_owned(), text }
}

fn decisions(criterion: &mut Criterion) {
    let sender = WorkloadId::parse(SENDER).expect("an identifier");
    let details = json!({"amount": 5});
    let subject: Option<&SubjectId> = None;
    let facts = Facts {
        now: UnixMillis(1_893_456_000_000),
        message: Some(MessageFacts {
            topic: "payments.commands",
            partition: Partition(0),
            offset: Offset(1),
            accepted: UnixMillis(1_893_455_999_000),
        }),
        sender: &sender,
        subject,
        transaction: Some(TransactionFacts {
            token: None,
            id: "txn-1",
            scope: vec!["pay", "read"],
            requester: "gateway",
            issued_at: 1_893_455_940.0,
            expires_at: 1_893_456_060.0,
            tctx: details.as_object(),
            rctx: None,
            acr: None,
            amr: None,
            auth_time: None,
        }),
        workflow: None,
        provenance: ProvenanceFacts { proven: true, from: None, senders: &[] },
        action: "pay",
        action_properties: None,
        resource_type: "Invoice",
        resource_id: "6",
        resource_properties: None,
        value: None,
        mask: &[],
    };
    let mut group = criterion.benchmark_group("decision");
    group.sample_size(30).warm_up_time(std::time::Duration::from_millis(500));
    group.measurement_time(std::time::Duration::from_secs(2));
    for count in [10, 100, 1_000, 10_000] {
        let text = policies(count);
        let schema = file("bench.cedarschema", SCHEMA.to_owned());
        let bundle = Bundle::load(vec![file("bench.cedar", text.clone())], schema, &Offer::default())
            .expect("a bundle");
        let entities = Entities::load(vec![file("e.json", store(count))], &bundle).expect("entities");
        let answer = bundle.evaluate(&entities, &facts, &[Principal::Workload(&sender)]);
        assert_eq!(answer.determining, ["p3"], "{:?}", answer.verdict);
        group.bench_with_input(BenchmarkId::new("evaluate", count), &count, |bencher, _| {
            bencher.iter(|| bundle.evaluate(black_box(&entities), &facts, &[Principal::Workload(&sender)]));
        });

        let set: PolicySet = text.parse().expect("policies");
        let index = Index::new(set.policies());
        let schema = SCHEMA.parse().expect("a schema");
        let cedar = cedar_policy::Entities::from_json_str(&store(count), Some(&schema)).expect("entities");
        let context = answer.context_json.expect("a context");
        let action = "Action::\"pay\"".parse().expect("an action");
        let context = Context::from_json_str(&context, Some((&schema, &action))).expect("a context");
        let uid = |text: String| text.parse().expect("an entity");
        let (principal, resource) =
            (uid(format!("Workload::\"{SENDER}\"")), uid("Invoice::\"6\"".to_owned()));
        let request = Request::new(principal, action, resource, context, None).expect("a request");
        group.bench_with_input(BenchmarkId::new("indexed", count), &count, |bencher, _| {
            bencher.iter(|| index.is_authorized(black_box(&request), &cedar));
        });
        group.bench_with_input(BenchmarkId::new("plain", count), &count, |bencher, _| {
            bencher.iter(|| Authorizer::new().is_authorized(black_box(&request), &set, &cedar));
        });
    }
    group.finish();
}

criterion_group!(benches, decisions);
criterion_main!(benches);
