//! Bundles and evaluation together: what is refused at load, what a policy sees, and what each outcome is called.

use miette::Diagnostic as _;
use serde_json::{Map, Value, json};

use super::*;
use crate::authorize::decision::Reason;
use crate::authorize::ids::{Digest, Offset, Partition, TrustDomain, UnixMillis, WorkloadId};

const SCHEMA: &str = r#"
    type Money = { amount: Long, currency: String };
    entity Team;
    entity Workload in [Team] = { level?: Long };
    entity User;
    entity Colour enum ["red", "blue"];
    entity Account;
    entity Invoice in [Account] = { owner?: Workload };
    action payments;
    action pay, "refund all" in [payments] appliesTo {
        principal: [Workload, User], resource: [Invoice, Colour],
        context: {
            now: datetime,
            message: { topic: String, partition: Long, offset: Long, accepted_at: datetime, queued: duration, redrives: Long },
            sender: Workload,
            subject?: User,
            transaction?: { id: String, scope: Set<String>, requester: String, issued_at: datetime, expires_at: datetime,
                            ip?: ipaddr, details?: { money: Money, limit?: decimal, colour?: Colour, tags?: Set<String> } },
            workflow?: { id: String, type: String, step: String, state: String, attempt?: Long, started_at?: datetime,
                         deadline?: datetime, registered: Bool, status?: String, owner?: String, registered_step?: String },
            provenance: { proven: Bool, gated: Bool, from?: String, depth: Long, origin: Workload, senders: Set<Workload> },
            request: { action?: { dry?: Bool }, resource?: { account: String } },
            value?: Money,
        },
    };
    action look appliesTo { principal: [Workload], resource: [Invoice] };
"#;

fn file(name: &str, text: impl Into<String>) -> SourceFile {
    SourceFile { name: name.to_owned(), text: text.into() }
}

fn offer() -> Offer {
    Offer { subject_type: Some("User".to_owned()), ..Offer::default() }
}

fn load(policies: &str) -> Result<Bundle, LoadErrors> {
    Bundle::load(vec![file("p.cedar", policies)], file("schema.cedarschema", SCHEMA), &offer())
}

fn bundle(policies: &str) -> Bundle {
    load(policies).unwrap_or_else(|errors| panic!("{:?}", messages(&errors)))
}

fn messages(errors: &LoadErrors) -> Vec<String> {
    errors.problems().iter().map(ToString::to_string).collect()
}

fn with_context(context: &str, offer: &Offer) -> Result<Bundle, LoadErrors> {
    let schema = format!(
        "entity Workload; entity User; entity Invoice; \
         action pay appliesTo {{ principal: Workload, resource: Invoice, context: {context} }};"
    );
    Bundle::load(vec![], file("schema.cedarschema", schema), offer)
}

/// What a test says about a record; the rest is plain.
struct Case {
    sender: WorkloadId,
    senders: Vec<WorkloadId>,
    subject: SubjectId,
    action: &'static str,
    resource: (&'static str, &'static str),
    details: Value,
    rctx: Value,
    value: Option<Value>,
    resource_properties: Option<Value>,
    expires_at: f64,
    token: Option<Digest>,
    mask: Vec<String>,
}

impl Default for Case {
    fn default() -> Self {
        let home = TrustDomain::parse("example.org").unwrap();
        Self {
            sender: workload("payer"),
            senders: Vec::new(),
            subject: SubjectId::new("alice", &home, &home),
            action: "pay",
            resource: ("Invoice", "i-1"),
            details: json!({"money": {"amount": 5, "currency": "EUR"}}),
            rctx: json!({"req_ip": "10.1.2.3"}),
            value: None,
            resource_properties: None,
            expires_at: 1_893_456_060.0,
            token: None,
            mask: Vec::new(),
        }
    }
}

fn workload(name: &str) -> WorkloadId {
    WorkloadId::parse(&format!("spiffe://example.org/agent/{name}")).unwrap()
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap()
}

impl Case {
    fn ask(&self, bundle: &Bundle) -> Answer {
        self.ask_with(bundle, json!([]), &[Principal::Workload(&self.sender)])
    }

    fn ask_with(&self, bundle: &Bundle, entities: Value, principals: &[Principal<'_>]) -> Answer {
        let entities = Entities::load(vec![file("e.json", entities.to_string())], bundle).unwrap();
        bundle.evaluate(&entities, &self.facts(), principals)
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            now: UnixMillis(1_893_456_000_000),
            message: Some(MessageFacts {
                topic: "payments.commands",
                partition: Partition(3),
                offset: Offset(41),
                accepted: UnixMillis(1_893_455_999_500),
            }),
            sender: &self.sender,
            subject: Some(&self.subject),
            transaction: Some(TransactionFacts {
                token: self.token,
                id: "txn-1",
                scope: vec!["pay", "read"],
                requester: "spiffe://example.org/gateway",
                issued_at: 1_893_455_940.25,
                expires_at: self.expires_at,
                tctx: Some(object(&self.details)),
                rctx: Some(object(&self.rctx)),
                acr: None,
                amr: None,
                auth_time: None,
            }),
            workflow: None,
            provenance: ProvenanceFacts { proven: true, from: None, senders: &self.senders },
            action: self.action,
            action_properties: None,
            resource_type: self.resource.0,
            resource_id: self.resource.1,
            resource_properties: self.resource_properties.as_ref().map(object),
            value: self.value.as_ref().map(object),
            mask: &self.mask,
        }
    }
}

fn reason(answer: &Answer) -> Reason {
    answer.verdict.as_ref().unwrap_err().reason
}

fn detail(answer: &Answer) -> &str {
    &answer.verdict.as_ref().unwrap_err().detail
}

const PERMIT: &str = "@id(\"all\") permit (principal, action, resource);\n";

#[test]
fn every_problem_of_every_file_is_reported_at_its_place() {
    let first = "@id(\"a\") permit (principal, action, resource);\npermit (principal, action, resource);\n\
                 @id(\"a\") forbid (principal, action, resource);\n@id(\"ä b\") permit (principal, action, resource);";
    let broken = "@id(\"x\") permit (principal, action resource);";
    let invalid = "@id(\"v\") permit (principal, action == Action::\"pay\", resource) when { context.nothing == 1 };\n\
                   @id(\"w\") @step_up(\"s\") permit (principal, action, resource);";
    let files = vec![file("a.cedar", first), file("b.cedar", broken), file("c.cedar", invalid)];
    let errors = Bundle::load(files, file("s.cedarschema", SCHEMA), &offer()).unwrap_err();
    let of = |name: &str| errors.problems().iter().filter(|p| p.file() == Some(name)).collect::<Vec<_>>();
    let (a, b, c) = (of("a.cedar"), of("b.cedar"), of("c.cedar"));
    assert_eq!((a.len(), b.len(), c.len()), (3, 1, 2), "{:?}", messages(&errors));
    assert!(a[0].message().contains("no `@id`"));
    assert_eq!(a[0].offset(), first.find("\npermit").map(|at| at + 1));
    assert!(a[1].message().contains("twice"));
    assert_eq!(a[1].offset(), first.rfind("@id(\"a\")"));
    assert!(a[2].message().contains("is no policy id"));
    assert_eq!(b[0].offset(), broken.find("resource"));
    assert_eq!(c[0].offset(), invalid.find("@step_up"));
    assert!(c[1].message().contains("nothing"), "{}", c[1].message());
    assert!(errors.problems().iter().all(|p| p.labels().is_some() && p.source_code().is_some()));
    assert_eq!(errors.related().unwrap().count(), 6);
}

#[test]
fn validation_points_into_the_file_that_the_policy_is_in() {
    let second =
        format!("// a comment\n{PERMIT}\n@id(\"bad\") permit (principal, action, resource is Nothing);");
    let files = vec![
        file("1.cedar", "@id(\"one\") permit (principal, action, resource);"),
        file("2.cedar", &*second),
    ];
    let errors = Bundle::load(files, file("s.cedarschema", SCHEMA), &offer()).unwrap_err();
    assert_eq!(errors.problems().len(), 1, "{:?}", messages(&errors));
    let problem = &errors.problems()[0];
    assert_eq!(problem.file(), Some("2.cedar"));
    let place = problem.offset().unwrap();
    assert!(second[place..].contains("Nothing") && place >= second.find("@id(\"bad\")").unwrap());
}

#[test]
fn a_broken_schema_is_one_problem_and_policies_are_parsed_all_the_same() {
    let files = vec![file("p.cedar", "permit (principal, action, resource);")];
    let errors = Bundle::load(files, file("s.cedarschema", "entity Workload; action"), &offer()).unwrap_err();
    assert_eq!(errors.problems().len(), 2, "{:?}", messages(&errors));
    assert!(errors.problems().iter().all(|p| p.offset().is_some()));
}

#[test]
fn the_digest_is_of_the_content_alone() {
    let one = "@id(\"a\") permit (principal, action == Action::\"pay\", resource);";
    let two = "@id(\"b\") @reason(\"because\") forbid (principal, action, resource) when { context.sender == principal };";
    let of = |files: Vec<SourceFile>, schema: &str| {
        Bundle::load(files, file("any.cedarschema", schema), &offer()).unwrap().digest()
    };
    let two = two.replace("action, resource)", "action == Action::\"pay\", resource)");
    let digest = of(vec![file("x", format!("{one}\n{two}"))], SCHEMA);
    let spread = two.replace(' ', "  ").replace("when", "// why\n  when");
    assert_eq!(of(vec![file("z", spread), file("y", format!("// c\n{one}"))], SCHEMA), digest);
    let swapped = SCHEMA
        .replace("[Workload, User]", "[User, Workload]")
        .replace("    entity Team;", "// x\nentity Team;");
    assert_eq!(of(vec![file("x", format!("{one}{two}"))], &swapped), digest);
    for other in [
        format!("{one}{}", two.replace("because", "since")),
        one.to_owned(),
        format!("{one}{two}").replace("\"b\"", "\"c\""),
    ] {
        assert_ne!(of(vec![file("x", other)], SCHEMA), digest);
    }
    assert_ne!(of(vec![file("x", format!("{one}{two}"))], &format!("{SCHEMA} entity More;")), digest);
    // Pinned: a digest is compared across machines and versions, so it may not change unseen.
    let pinned = Bundle::load(
        vec![file("p", "@id(\"a\") permit (principal, action, resource);")],
        file(
            "s.cedarschema",
            "entity Workload; entity R; action a appliesTo { principal: Workload, resource: R };",
        ),
        &Offer::default(),
    );
    assert_eq!(pinned.unwrap().digest().to_string(), PINNED_DIGEST);
}

const PINNED_DIGEST: &str = "KcKhyiYb_ZchvjQT8HWOVI0uwmhKDm9kDUONqXVGAJo";

#[test]
fn a_schema_in_json_form_is_the_same_schema() {
    let fragment = cedar_policy::SchemaFragment::from_cedarschema_str(SCHEMA).unwrap().0;
    let json = file("schema.json", fragment.to_json_string().unwrap());
    let bundle_of_json = Bundle::load(vec![file("p", PERMIT)], json, &offer()).unwrap();
    assert_eq!(bundle_of_json.digest(), bundle(PERMIT).digest());
    assert!(Case::default().ask(&bundle_of_json).verdict.is_ok());
}

#[test]
fn a_schema_may_require_what_every_route_has() {
    let all = Offer {
        transaction: true,
        countersignature: true,
        value: true,
        subject_type: Some("User".to_owned()),
    };
    for (context, refused) in [
        ("{ subject: User }", "`subject` is required"),
        ("{ transaction: { id: String } }", "`transaction` is required"),
        ("{ provenance: { from: String } }", "`provenance.from` is required"),
        ("{ value: { a: Long } }", "`value` is required"),
    ] {
        assert!(with_context(context, &all).is_ok(), "{context}");
        let errors = with_context(context, &offer()).unwrap_err();
        assert_eq!(errors.problems().len(), 1);
        assert!(errors.problems()[0].message().contains(refused), "{:?}", messages(&errors));
        assert!(with_context(&context.replacen(':', "?:", 1), &all).is_ok());
    }
}

#[test]
fn a_schema_that_asks_for_what_is_not_offered_is_refused() {
    for (context, refused) in [
        ("{ sneder: Workload }", "offers no `sneder`"),
        ("{ x?: Long }", "offers no `x`"),
        ("{ message: { topics?: String } }", "offers no `message.topics`"),
        ("{ now: Long }", "`now` is declared as Long, but it is datetime"),
        ("{ sender: User }", "`sender` is declared as User, but it is Workload"),
        ("{ message: String }", "`message` is declared as String, but it is a record"),
        ("{ transaction?: { details: { a: Long } } }", "`transaction.details` is required"),
        ("{ transaction?: { ip: ipaddr } }", "`transaction.ip` is required"),
        ("{ transaction?: { acr: String } }", "`transaction.acr` is required"),
        ("{ transaction?: { amr: Set<String> } }", "`transaction.amr` is required"),
        ("{ transaction?: { authenticated_at: datetime } }", "`transaction.authenticated_at` is required"),
        (
            "{ transaction?: { authenticated_at?: Long } }",
            "`transaction.authenticated_at` is declared as Long, but it is datetime",
        ),
        (
            "{ transaction?: { scope: String } }",
            "`transaction.scope` is declared as String, but it is Set<String>",
        ),
        ("{ workflow: { id: String } }", "`workflow` is required"),
        ("{ workflow?: { status: String } }", "`workflow.status` is required"),
        ("{ request: { action: {} } }", "`request.action` is required"),
        ("{ value?: String }", "`value` is declared as String, but it is a record"),
        ("{ subject?: Workload }", "`subject` is declared as Workload, but it is User"),
        ("{ provenance: { senders: Set<User> } }", "but it is Set<Workload>"),
    ] {
        let errors = with_context(context, &offer()).unwrap_err();
        assert_eq!(errors.problems().len(), 1, "{context}: {:?}", messages(&errors));
        assert!(errors.problems()[0].message().contains(refused), "{context}: {:?}", messages(&errors));
        assert!(errors.problems()[0].help().is_some() && errors.problems()[0].offset().is_some());
    }
    let two = with_context("{ a: Long, b: Long }", &offer()).unwrap_err();
    assert_eq!(two.problems().len(), 2);
    assert!(with_context("{ subject?: User }", &Offer::default()).is_err());
    let empty =
        Bundle::load(vec![], file("s", "entity Workload; namespace N { action a; }"), &Offer::default());
    assert!(messages(&empty.unwrap_err())[0].contains("no action"));
}

#[test]
fn a_policy_sees_what_is_declared_and_it_is_recorded_as_seen() {
    let mut case = Case {
        senders: vec![workload("b"), workload("a")],
        value: Some(json!({"amount": 7, "currency": "EUR", "secret": "not declared"})),
        resource_properties: Some(json!({"account": "acc"})),
        ..Case::default()
    };
    case.details = json!({"money": {"amount": 5, "currency": "EUR"}, "limit": "1.50", "colour": {"type": "Colour", "id": "red"},
                          "tags": ["x", "y"], "iban": "not declared"});
    case.mask =
        vec!["value.amount".to_owned(), "transaction.details.money".to_owned(), "value.none".to_owned()];
    let bundle = bundle(
        r#"@id("p") permit (principal, action == Action::"pay", resource) when {
            context.now == datetime("2030-01-01T00:00:00Z") && context.message.topic == "payments.commands" &&
            context.message.partition == 3 && context.message.offset == 41 && context.message.redrives == 0 &&
            context.message.queued == duration("500ms") && context.message.accepted_at < context.now &&
            context.sender == principal && context has subject && context.subject == User::"alice" &&
            context has transaction && context.transaction.scope.containsAll(["pay", "read"]) &&
            context.transaction.issued_at == datetime("2029-12-31T23:59:00.250Z") &&
            context.transaction.expires_at > context.now &&
            context.transaction has ip && context.transaction.ip.isInRange(ip("10.0.0.0/8")) &&
            context.transaction has details && context.transaction.details.money.amount == 5 &&
            context.transaction.details has limit && context.transaction.details.limit == decimal("1.5") &&
            context.transaction.details has colour && context.transaction.details.colour == Colour::"red" &&
            context.provenance.origin == Workload::"spiffe://example.org/agent/a" && context.provenance.depth == 2 &&
            context.provenance.senders.contains(Workload::"spiffe://example.org/agent/b") &&
            !context.provenance.gated && context.provenance.proven && !(context has workflow) &&
            context.request has resource && context.request.resource.account == "acc" && !(context.request has action) &&
            context has value && context.value.amount == 7
        };"#,
    );
    let answer = case.ask(&bundle);
    assert_eq!(answer.verdict.unwrap().into_policies(), ["p"]);
    assert_eq!(answer.determining, ["p"]);
    let context: Value = serde_json::from_str(&answer.context_json.unwrap()).unwrap();
    assert_eq!(context["value"], json!({"amount": "***", "currency": "EUR"}));
    assert_eq!(context["transaction"]["details"]["money"], json!("***"));
    assert_eq!(context["transaction"]["details"]["tags"], json!(["x", "y"]));
    assert_eq!(context["transaction"]["issued_at"], json!("2029-12-31T23:59:00.250Z"));
    assert_eq!(context["sender"], json!({"type": "Workload", "id": "spiffe://example.org/agent/payer"}));
    assert_eq!(context["message"]["queued"], json!("500ms"));
    assert!(context.get("workflow").is_none());
    assert!(!context.to_string().contains("not declared"));
    assert_eq!(answer.masked, ["transaction.details.money", "value.amount"]);
}

#[test]
fn the_recorded_context_is_read_back_by_cedar_with_the_schema() {
    let case = Case {
        senders: vec![workload("a")],
        value: Some(json!({"amount": 7, "currency": "EUR"})),
        ..Case::default()
    };
    let bundle = bundle(PERMIT);
    let text = case.ask(&bundle).context_json.unwrap();
    let action = "Action::\"pay\"".parse().unwrap();
    let read = cedar_policy::Context::from_json_str(&text, Some((bundle.schema(), &action))).unwrap();
    assert!(read.validate(bundle.schema(), &action).is_ok());
    assert_eq!(read.into_iter().count(), 8);
}

#[test]
fn an_action_that_declares_nothing_sees_nothing() {
    let answer = Case { action: "look", ..Case::default() }.ask(&bundle(PERMIT));
    assert_eq!(answer.context_json.as_deref(), Some("{}"));
    assert!(answer.verdict.is_ok());
}

#[test]
fn claims_that_are_not_as_declared_are_request_invalid() {
    let bundle = bundle(PERMIT);
    let money = json!({"amount": 5, "currency": "EUR"});
    for (details, wrong) in [
        (json!({}), "`transaction.details.money` is missing"),
        (json!({"money": null}), "`transaction.details.money` must be a record"),
        (json!({"money": {"amount": 5}}), "`transaction.details.money.currency` is missing"),
        (
            json!({"money": {"amount": "5", "currency": "EUR"}}),
            "`transaction.details.money.amount` must be Long",
        ),
        (
            json!({"money": {"amount": 5.0, "currency": "EUR"}}),
            "`transaction.details.money.amount` must be Long",
        ),
        (
            json!({"money": {"amount": u64::MAX, "currency": "EUR"}}),
            "`transaction.details.money.amount` must be Long",
        ),
        (json!({"money": money, "limit": 1.5}), "`transaction.details.limit` must be decimal"),
        (json!({"money": money, "limit": "much"}), "`transaction.details.limit` must be decimal"),
        (json!({"money": money, "limit": null}), "`transaction.details.limit` must be decimal"),
        (json!({"money": money, "tags": ["a", 1]}), "`transaction.details.tags[1]` must be String"),
        (json!({"money": money, "colour": "red"}), "`transaction.details.colour` must be {\"type\""),
        (
            json!({"money": money, "colour": {"type": "User", "id": "red"}}),
            "`transaction.details.colour` must be",
        ),
        (
            json!({"money": money, "colour": {"type": "Colour", "id": "green"}}),
            "is none of the entities of `Colour`",
        ),
    ] {
        let answer = Case { details, ..Case::default() }.ask(&bundle);
        assert_eq!(reason(&answer), Reason::RequestInvalid);
        assert!(detail(&answer).contains(wrong), "{}", detail(&answer));
        assert!(answer.context_json.is_none());
    }
    let far = Case { expires_at: 9e15, ..Case::default() }.ask(&bundle);
    assert!(detail(&far).contains("`transaction.expires_at` is outside"), "{}", detail(&far));
}

#[test]
fn an_address_that_is_none_is_not_there() {
    let bundle = bundle(PERMIT);
    for (rctx, there) in [
        (json!({"req_ip": "10.0.0.1"}), Some("10.0.0.1")),
        (json!({"req_ip": "::ffff:10.0.0.1"}), Some("10.0.0.1")),
        (json!({"req_ip": "2001:db8::1"}), Some("2001:db8::1")),
        (json!({"req_ip": "::1.2.3.4"}), Some("::102:304")),
        (json!({"req_ip": "10.0.0.0/8"}), None),
        (json!({"req_ip": "somewhere"}), None),
        (json!({"req_ip": 5}), None),
        (json!({}), None),
    ] {
        let answer = Case { rctx, ..Case::default() }.ask(&bundle);
        assert!(answer.verdict.is_ok(), "{:?}", answer.verdict);
        let context: Value = serde_json::from_str(&answer.context_json.unwrap()).unwrap();
        assert_eq!(context["transaction"].get("ip").and_then(Value::as_str), there);
    }
}

#[test]
fn a_login_is_seen_as_the_token_tells_it_and_what_it_does_not_tell_is_not_there() {
    let context = "{ transaction?: { acr?: String, amr?: Set<String>, authenticated_at?: datetime } }";
    let schema = format!(
        "entity Workload; entity User; entity Invoice; \
         action pay appliesTo {{ principal: Workload, resource: Invoice, context: {context} }};"
    );
    let strong = r#"@id("strong") permit (principal, action, resource) when {
        context has transaction.acr && context.transaction.acr == "phr" && context.transaction.amr.contains("hwk") &&
        context.transaction.authenticated_at == datetime("2029-12-31T23:59:00.250Z") };"#
        .replace("context.transaction.amr", "context has transaction.amr && context.transaction.amr")
        .replace(
            "context.transaction.authenticated_at ==",
            "context has transaction.authenticated_at && context.transaction.authenticated_at ==",
        );
    let bundle = Bundle::load(vec![file("p", strong)], file("s.cedarschema", schema), &offer()).unwrap();
    let entities = Entities::load(Vec::new(), &bundle).unwrap();
    let case = Case::default();
    let amr = ["hwk".to_owned(), "pin".to_owned()];
    let ask = |acr, amr, auth_time| {
        let mut facts = case.facts();
        let transaction = facts.transaction.as_mut().unwrap();
        (transaction.acr, transaction.amr, transaction.auth_time) = (acr, amr, auth_time);
        bundle.evaluate(&entities, &facts, &[Principal::Workload(&case.sender)])
    };
    let told = ask(Some("phr"), Some(&amr[..]), Some(1_893_455_940.25));
    assert!(told.verdict.is_ok(), "{:?}", told.verdict);
    let seen: Value = serde_json::from_str(&told.context_json.unwrap()).unwrap();
    assert_eq!(seen["transaction"]["amr"], json!(["hwk", "pin"]));
    for (acr, amr, auth_time) in
        [(None, Some(&amr[..]), Some(1.0)), (Some("phr"), None, Some(1.0)), (None, None, None)]
    {
        let answer = ask(acr, amr, auth_time);
        assert_eq!((reason(&answer), answer.errors.len()), (Reason::NotPermitted, 0));
    }
    assert_eq!(reason(&ask(None, None, Some(9e15))), Reason::RequestInvalid);
}

#[test]
fn a_step_up_that_looks_at_the_login_is_discharged_by_no_number_of_approvals() {
    let asked = |annotations: &str, condition: &str| {
        let context = "{ transaction?: { acr?: String } }";
        let schema = format!(
            "entity Workload; entity User; entity Invoice; \
             action pay appliesTo {{ principal: Workload, resource: Invoice, context: {context} }};"
        );
        let forbid = format!(
            "@id(\"s\") @step_up(\"s\") {annotations} forbid (principal, action, resource) unless {{ {condition} }};"
        );
        let policies = vec![file("p", format!("{PERMIT}{forbid}"))];
        let bundle =
            Bundle::load(policies, file("s.cedarschema", schema), &offer()).map_err(|e| messages(&e))?;
        Ok::<_, Vec<String>>(Case::default().ask(&bundle).step_ups.remove(0).approvals)
    };
    let looks = "context has transaction.acr && context.transaction.acr == \"phr\"";
    assert_eq!(asked("@acr(\"phr\")", looks), Ok(0));
    assert_eq!(asked("@max_age(\"5m\")", looks), Ok(0));
    // Who answers must have logged in so: the policy looks at no login of the subject's.
    assert_eq!(asked("@acr(\"phr\") @approvals(\"2\")", "resource == Invoice::\"none\""), Ok(2));
    // It says no login that would do, so an approval does.
    assert_eq!(asked("", looks), Ok(1));
    let errors = asked("@acr(\"phr\") @approvals(\"2\")", looks).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("only a fresh login discharges"), "{errors:?}");
}

#[test]
fn requests_that_the_schema_does_not_admit_are_invalid() {
    let bundle = bundle(PERMIT);
    for (action, resource, wrong) in [
        ("steal", ("Invoice", "i"), "no action `steal`"),
        ("payments", ("Invoice", "i"), "no action `payments`"),
        ("pay", ("Nothing", "i"), "no entity type `Nothing`"),
        ("pay", ("not a type", "i"), "`not a type` is no legal entity type"),
        ("pay", ("Invoice::\"x\"", "i"), "is no legal entity type"),
        ("pay", ("Account", "i"), "does not apply to a resource `Account`"),
        ("pay", ("Colour", "green"), "there is no Colour::\"green\""),
    ] {
        let answer = Case { action, resource, ..Case::default() }.ask(&bundle);
        assert_eq!(reason(&answer), Reason::RequestInvalid);
        assert!(detail(&answer).contains(wrong), "{}", detail(&answer));
    }
    let case = Case { action: "look", ..Case::default() };
    let answer = case.ask_with(&bundle, json!([]), &[Principal::Subject(&case.subject)]);
    assert!(detail(&answer).contains("not for a principal `User`"), "{}", detail(&answer));
    let nobody = Case::default().ask_with(&bundle, json!([]), &[]);
    assert_eq!(reason(&nobody), Reason::RequestInvalid);
}

#[test]
fn an_id_cannot_break_out_of_its_entity() {
    let bundle = bundle(r#"@id("p") permit (principal, action, resource == Invoice::"i-1");"#);
    for id in ["i-1\" || true", "i-1\\", "\"", "*"] {
        let answer = Case { resource: ("Invoice", id), ..Case::default() }.ask(&bundle);
        assert_eq!(reason(&answer), Reason::NotPermitted, "{id}");
    }
}

#[test]
fn a_forbid_says_why() {
    let bundle = bundle(&format!(
        "{PERMIT}@id(\"frozen\") @reason(\"the account is frozen\") forbid (principal, action, resource);\
         @id(\"b\") forbid (principal, action, resource);"
    ));
    let answer = Case::default().ask(&bundle);
    assert_eq!(reason(&answer), Reason::Forbidden);
    assert_eq!(detail(&answer), "forbidden by `b`; by `frozen`: the account is frozen");
    assert_eq!(answer.determining, ["b", "frozen"]);
}

#[test]
fn an_error_outranks_permit_and_forbid() {
    let erring = "@id(\"e\") forbid (principal, action == Action::\"pay\", resource) when { context.message.offset + 9223372036854775807 > 0 };";
    for more in ["", "@id(\"f\") forbid (principal, action, resource);"] {
        let answer = Case::default().ask(&bundle(&format!("{PERMIT}{erring}{more}")));
        assert_eq!(reason(&answer), Reason::PolicyError);
        assert!(detail(&answer).contains("`e`"), "{}", detail(&answer));
        assert_eq!(answer.errors.len(), 1);
        assert_eq!(answer.errors[0].0, "e");
        assert!(answer.determining.is_empty());
    }
}

#[test]
fn an_error_does_not_tell_what_is_masked() {
    let erring = bundle(
        "@id(\"e\") forbid (principal, action == Action::\"pay\", resource) \
         when { context has value && context.value.amount + 9223372036854775807 > 0 };",
    );
    let value = Some(json!({"amount": 77_123, "currency": "EUR"}));
    let open = Case { value: value.clone(), ..Case::default() }.ask(&erring);
    assert!(detail(&open).contains("77123"), "{}", detail(&open));
    let masked = Case { value, mask: vec!["value.amount".to_owned()], ..Case::default() }.ask(&erring);
    assert_eq!((reason(&masked), masked.errors[0].0.as_str()), (Reason::PolicyError, "e"));
    assert!(!format!("{masked:?}").contains("77123"), "{masked:?}");
}

#[test]
fn nothing_is_permitted_by_default() {
    let answer = Case::default().ask(&bundle(""));
    assert_eq!(reason(&answer), Reason::NotPermitted);
    assert_eq!(
        detail(&answer),
        "no policy permits Workload::\"spiffe://example.org/agent/payer\" to `pay` Invoice::\"i-1\""
    );
    assert!(answer.determining.is_empty() && answer.context_json.is_some());
}

#[test]
fn every_party_must_be_allowed() {
    let bundle = bundle(
        r#"@id("a") permit (principal == Workload::"spiffe://example.org/agent/payer", action, resource);
           @id("b") permit (principal == User::"alice", action == Action::"pay", resource);
           @id("c") forbid (principal == Workload::"spiffe://example.org/agent/bad", action, resource);"#,
    );
    let case = Case::default();
    let (sender, subject) = (Principal::Workload(&case.sender), Principal::Subject(&case.subject));
    let both = case.ask_with(&bundle, json!([]), &[sender, subject]);
    assert_eq!(both.determining, ["a", "b"]);
    assert_eq!(both.verdict.unwrap().into_policies(), ["a", "b"]);
    let home = TrustDomain::parse("example.org").unwrap();
    let away = SubjectId::new("alice", &TrustDomain::parse("other.org").unwrap(), &home);
    assert_eq!(away.as_str(), "other.org/alice");
    let other = case.ask_with(&bundle, json!([]), &[sender, Principal::Subject(&away)]);
    assert_eq!(reason(&other), Reason::NotPermitted);
    assert!(detail(&other).contains("User::\"other.org/alice\""));
    let bad = workload("bad");
    let denied =
        case.ask_with(&bundle, json!([]), &[sender, Principal::Subject(&away), Principal::Workload(&bad)]);
    assert_eq!((reason(&denied), denied.determining), (Reason::Forbidden, vec!["c".into()]));
}

#[test]
fn entities_give_attributes_and_parents_and_absent_ones_have_none() {
    let bundle = bundle(
        r#"@id("team") permit (principal in Team::"payers", action in Action::"payments", resource in Account::"acc");
           @id("level") forbid (principal, action == Action::"pay", resource) when { principal has level && principal.level < 2 };"#,
    );
    let case = Case::default();
    let store = |level: i64| {
        json!([
            {"uid": {"type": "Workload", "id": case.sender.as_str()}, "attrs": {"level": level},
             "parents": [{"type": "Team", "id": "inner"}]},
            {"uid": {"type": "Team", "id": "payers"}, "attrs": {}, "parents": []},
            {"uid": {"type": "Invoice", "id": "i-1"}, "attrs": {}, "parents": [{"type": "Account", "id": "acc"}]},
        ])
    };
    let principals = [Principal::Workload(&case.sender)];
    assert_eq!(reason(&case.ask_with(&bundle, json!([]), &principals)), Reason::NotPermitted);
    assert_eq!(reason(&case.ask_with(&bundle, store(1), &principals)), Reason::Forbidden);
    // `Team` is in no type here, so membership is direct alone.
    assert_eq!(reason(&case.ask_with(&bundle, store(2), &principals)), Reason::NotPermitted);
    let mut direct = store(2);
    direct[0]["parents"][0]["id"] = json!("payers");
    assert_eq!(case.ask_with(&bundle, direct, &principals).determining, ["team"]);
}

#[test]
fn entity_files_are_checked_whole() {
    let bundle = bundle(PERMIT);
    let one = r#"[{"uid": {"type": "Workload", "id": "a"}, "attrs": {"level": "high"}, "parents": []},
        {"uid": {"type": "User", "id": "u"}, "attrs": {}, "parents": []}]"#;
    let two = r#"[{"uid": {"type": "User", "id": "u"}, "attrs": {}, "parents": []},
        {"uid": {"type": "Nothing", "id": "u"}, "attrs": {}, "parents": []}]"#;
    let files = vec![file("1.json", one), file("2.json", two), file("3.json", "[{]")];
    let errors = Entities::load(files, &bundle).unwrap_err();
    assert_eq!(errors.problems().len(), 4, "{:?}", messages(&errors));
    assert!(errors.problems().iter().all(|p| p.offset().is_some()), "{:?}", messages(&errors));
    assert_eq!(errors.problems()[0].offset(), one.find("{\"uid\""));
    assert!(errors.problems()[1].message().contains("twice"));
}

#[test]
fn the_digest_of_entities_is_of_their_content_alone() {
    let bundle = bundle(PERMIT);
    let a = r#"{"uid": {"type": "Workload", "id": "a"}, "attrs": {}, "parents": [{"type": "Team", "id": "x"}, {"type": "Team", "id": "y"}]}"#;
    let b = r#"{"uid": {"type": "User", "id": "u"}, "attrs": {}, "parents": []}"#;
    let of = |files: &[String]| {
        let files = files.iter().map(|text| file("e.json", text.as_str())).collect();
        Entities::load(files, &bundle).unwrap().version().to_owned()
    };
    let digest = of(&[format!("[{a}, {b}]")]);
    let swapped = a.replace("\"x\"", "\"-\"").replace("\"y\"", "\"x\"").replace("\"-\"", "\"y\"");
    assert_eq!(of(&[format!("[{b}]"), format!("[ {swapped}]")]), digest);
    assert_ne!(of(&[format!("[{a}]")]), digest);
    assert_ne!(of(&[]), digest);
}

#[test]
fn links_of_templates_are_policies() {
    let template = "@id(\"t\") @reason(\"linked\") permit (principal == ?principal, action, resource in ?resource);\n\
                    @id(\"ask\") @step_up(\"s\") forbid (principal == ?principal, action, resource);";
    let links = r#"[{"template_id": "t", "new_id": "l1", "args": {"?principal": {"type": "Workload", "id": "spiffe://example.org/agent/payer"},
        "?resource": {"type": "Invoice", "id": "i-1"}}}]"#;
    let load = |links: &str| {
        let files = vec![file("dir/links.json", links), file("t.cedar", template)];
        Bundle::load(files, file("s", SCHEMA), &offer())
    };
    let bundle = load(links).unwrap();
    assert_eq!(bundle.policy_count(), 1);
    assert_eq!(Case::default().ask(&bundle).determining, ["l1"]);
    let more = links.replace(
        "}]",
        r#"}, {"template_id": "ask", "new_id": "l2", "args":
        {"?principal": {"type": "Workload", "id": "spiffe://example.org/agent/payer"}}}]"#,
    );
    let asking = load(&more).unwrap();
    let answer = Case::default().ask(&asking);
    assert_eq!(reason(&answer), Reason::StepUpRequired);
    assert_eq!(answer.step_ups[0].policy, "l2");
    assert_ne!(asking.digest(), bundle.digest());
    for (from, to) in
        [("\"t\"", "\"none\""), ("l1", "t"), ("l1", "a b"), ("?resource", "?other"), ("Workload", "a b")]
    {
        let errors = load(&links.replace(from, to)).unwrap_err();
        assert_eq!(errors.problems().len(), 1, "{to}: {:?}", messages(&errors));
        assert_eq!(errors.problems()[0].offset(), Some(1));
    }
    // A link that does not fit the schema is found by validation.
    assert!(load(&links.replace("Workload", "Nothing")).is_err());
}

#[test]
fn a_step_up_is_asked_for_once_all_else_allows() {
    let step_up = "@id(\"big\") @step_up(\"manager\") @approvals(\"2\") @hold(\"30m\") @message(\"big\") \
                   forbid (principal, action == Action::\"pay\", resource) when { context.message.offset > 40 };\n\
                   @id(\"err\") @step_up(\"x\") forbid (principal, action == Action::\"refund all\", resource) \
                   when { context.message.offset + 9223372036854775807 > 0 };";
    let asking = bundle(&format!("{PERMIT}{step_up}"));
    assert_eq!(asking.policy_count(), 3);
    assert_eq!((asking.longest_hold_s(), bundle(PERMIT).longest_hold_s()), (Some(1800), None));
    let case = Case::default();
    let answer = case.ask(&asking);
    assert_eq!(reason(&answer), Reason::StepUpRequired);
    assert!(detail(&answer).contains("`manager`"));
    assert_eq!(answer.determining, ["big"]);
    let expected = StepUp {
        name: "manager".to_owned(),
        policy: "big".to_owned(),
        message: Some("big".to_owned()),
        approvals: 2,
        acr_values: None,
        max_age_s: None,
        hold_s: Some(1800),
        grant_s: None,
    };
    assert_eq!(answer.step_ups, [expected]);
    let both = case.ask_with(
        &asking,
        json!([]),
        &[Principal::Workload(&case.sender), Principal::Subject(&case.subject)],
    );
    assert_eq!(both.step_ups.len(), 1);
    let err = Case { action: "refund all", ..Case::default() }.ask(&asking);
    assert_eq!(reason(&err), Reason::PolicyError);
    assert_eq!(err.errors[0].0, "err");
    let not_asked = Case { action: "refund all", ..Case::default() }.ask(&bundle(step_up));
    assert_eq!((reason(&not_asked), not_asked.errors.len()), (Reason::NotPermitted, 0));
    let forbidden = bundle(&format!("{PERMIT}{step_up}@id(\"f\") forbid (principal, action, resource);"));
    let answer = Case::default().ask(&forbidden);
    assert_eq!((reason(&answer), answer.step_ups.len()), (Reason::Forbidden, 0));
}

#[test]
fn a_bundle_can_have_a_version() {
    let with = |version: &str| {
        Bundle::load(vec![file("p/VERSION", version), file("p", PERMIT)], file("s", SCHEMA), &offer())
    };
    let named = with("2030-01 release\n").unwrap();
    assert_eq!(named.version().unwrap(), "2030-01 release");
    assert_eq!(named.digest(), bundle(PERMIT).digest());
    assert!(with("").is_err() && with("a\nb").is_err());
}

#[test]
fn policies_that_never_apply_are_warned_of() {
    let never = bundle("@id(\"n\") permit (principal, action == Action::\"pay\", resource) when { false };");
    assert_eq!(never.warnings().len(), 1);
    assert!(bundle(PERMIT).warnings().is_empty());
}

fn token(last: u8) -> Digest {
    // All of them fall into one slot, so that each takes the other's place.
    let mut hash = [7; 32];
    hash[31] = last;
    Digest(hash)
}

#[test]
fn what_is_made_of_a_token_once_is_what_would_be_made_of_it_again() {
    let bundle = bundle(
        r#"@id("small") permit (principal, action, resource) when {
            context has transaction && context.transaction has details && context.transaction.details.money.amount < 10
        };"#,
    );
    let masks: [&[&str]; 4] = [&[], &["transaction.details.money"], &["transaction"], &["value"]];
    for (last, amount) in [(0, 5), (1, 50), (0, 5), (0, 5), (1, 50), (1, 50)] {
        for mask in masks {
            let case = |token| Case {
                details: json!({"money": {"amount": amount, "currency": "EUR"}}),
                mask: mask.iter().map(|path| (*path).to_owned()).collect(),
                token,
                ..Case::default()
            };
            let (plain, kept) = (case(None).ask(&bundle), case(Some(token(last))).ask(&bundle));
            assert_eq!(plain.verdict.is_ok(), amount == 5);
            assert_eq!(kept.verdict, plain.verdict, "{mask:?}");
            assert_eq!((kept.context_json, kept.masked), (plain.context_json, plain.masked), "{mask:?}");
        }
    }
}

#[test]
fn what_cannot_be_made_of_a_token_is_refused_each_time() {
    let bundle = bundle(PERMIT);
    for _ in 0..2 {
        let beyond = Case { expires_at: 1e15, token: Some(token(0)), ..Case::default() };
        assert_eq!(reason(&beyond.ask(&bundle)), Reason::RequestInvalid);
        let good = Case { token: Some(token(1)), ..Case::default() };
        assert!(good.ask(&bundle).verdict.is_ok());
    }
}
