//! Policies as deep as a bundle admits are parsed, validated and evaluated on a thread of 2 MiB, which is what a thread
//! has by default: Cedar refuses to evaluate where little stack is left, and that would deny every record.

use countersign::authorize::ids::{Offset, Partition, UnixMillis, WorkloadId};
use countersign::authorize::policy::{
    Bundle, Entities, Facts, MessageFacts, Offer, Principal, ProvenanceFacts, SourceFile,
};

const SCHEMA: &str = "entity Workload; entity Invoice;
    action pay appliesTo { principal: Workload, resource: Invoice, context: { message: { offset: Long } } };";

fn file(name: &str, text: String) -> SourceFile {
    SourceFile { name: name.to_owned(), text }
}

fn load(body: &str) -> Result<Bundle, countersign::authorize::policy::LoadErrors> {
    let policy = format!("@id(\"p\") permit (principal, action, resource) when {{ {body} }};");
    Bundle::load(vec![file("p.cedar", policy)], file("s.cedarschema", SCHEMA.to_owned()), &Offer::default())
}

/// The error of a record that asks this policy.
fn errors(body: &str) -> Vec<(String, String)> {
    let bundle = load(body).unwrap_or_else(|errors| panic!("{:?}", errors.problems()));
    let entities = Entities::load(Vec::new(), &bundle).unwrap();
    let sender = WorkloadId::parse("spiffe://example.org/agent").unwrap();
    let message = Some(MessageFacts {
        topic: "t",
        partition: Partition(0),
        offset: Offset(41),
        accepted: UnixMillis(1_893_456_000_000),
    });
    let facts = Facts {
        now: UnixMillis(1_893_456_000_000),
        message,
        sender: &sender,
        subject: None,
        transaction: None,
        workflow: None,
        provenance: ProvenanceFacts { proven: true, from: None, senders: &[] },
        action: "pay",
        action_properties: None,
        resource_type: "Invoice",
        resource_id: "i",
        resource_properties: None,
        value: None,
        mask: &[],
    };
    bundle.evaluate(&entities, &facts, &[Principal::Workload(&sender)]).errors
}

/// Bodies that nest by every means there is: chains of `chain` links, brackets and branches of `brackets`.
fn bodies(chain: usize, brackets: usize) -> Vec<String> {
    let offset = "context.message.offset";
    vec![
        vec![format!("{offset} == 41"); chain].join(" && "),
        vec![format!("{offset} == 42"); chain].join(" || "),
        format!("{} > 0", vec![offset; chain].join(" + ")),
        format!("{}{offset} == 41{}", "(".repeat(brackets), ")".repeat(brackets)),
        format!("{}true", format!("if {offset} == 42 then false else ").repeat(brackets)),
        format!(
            "{}true{}",
            format!("if {offset} == 41 then ").repeat(brackets),
            " else false".repeat(brackets)
        ),
        format!("{0}1{1} == {0}1{1}", "{a: ".repeat(brackets), "}".repeat(brackets)),
        format!("{0}1{1} == {0}1{1}", "[".repeat(brackets), "]".repeat(brackets)),
    ]
}

#[test]
fn the_deepest_policies_that_load_are_evaluated_on_a_thread_of_two_mebibytes() {
    let small = std::thread::Builder::new().stack_size(2 << 20).spawn(|| {
        for body in bodies(250, 62) {
            assert_eq!(errors(&body), [], "{}", &body[..60]);
        }
    });
    small.unwrap().join().unwrap();
}

#[test]
fn deeper_ones_are_refused_and_the_stack_stays_whole() {
    let small = std::thread::Builder::new().stack_size(2 << 20).spawn(|| {
        for body in bodies(20_000, 5_000) {
            let refused = load(&body).unwrap_err();
            assert!(refused.problems()[0].message().contains("nests too deeply"), "{}", &body[..60]);
        }
    });
    small.unwrap().join().unwrap();
}
