//! A step-up about the login over HTTP: nothing is held, so whoever asks comes again with a fresh Txn-Token.

use super::*;

const LOGIN_SCHEMA: &str = r#"
    entity Workload; entity User; entity Record; entity Invoice;
    action read appliesTo { principal: [User, Workload], resource: [Record, Invoice], context: {
        now: datetime, transaction?: { acr?: String, authenticated_at?: datetime },
    } };
"#;
const LOGIN_POLICIES: &str = r#"
    @id("all") permit (principal, action, resource);
    @id("strong") @step_up("login") @acr("phr phrh") @max_age("5m") forbid (principal, action, resource) unless {
        context has transaction.acr && ["phr", "phrh"].contains(context.transaction.acr) &&
        context has transaction.authenticated_at &&
        context.now.durationSince(context.transaction.authenticated_at) <= duration("5m") };
"#;

/// The tokens of a caller whose Txn-Token tells that login.
fn with_login(jti: &str, rctx: Value) -> Tokened {
    let mut claims = transaction_claims();
    claims["rctx"] = rctx;
    let fresh = sign(TokenKind::Transaction, &claims, "tts");
    let hash = token_hash(fresh.as_bytes()).to_string();
    let tokens = Tokened::new(|claims| {
        claims["jti"] = jti.into();
        claims["tth"] = hash.into();
    });
    Tokened { txn: Some(fresh), ..tokens }
}

#[test]
fn whoever_asks_again_with_a_fresh_login_is_allowed() {
    let mut world = World::new();
    let file = |name: &str, text: &str| SourceFile { name: name.into(), text: text.into() };
    let offer = Offer { subject_type: Some("User".into()), ..Offer::default() };
    let schema = file("schema.cedarschema", LOGIN_SCHEMA);
    let bundle = Bundle::load(vec![file("p.cedar", LOGIN_POLICIES)], schema, &offer);
    let bundle = bundle.unwrap_or_else(|errors| panic!("{:?}", errors.problems()));
    world.snapshot.entities = Arc::new(Entities::load(Vec::new(), &bundle).unwrap());
    world.snapshot.policy = Arc::new(bundle);
    let body = about_itself("read", ("Invoice", "secret"));
    let logins = [
        ("j-1", json!({}), Some(Reason::StepUpRequired)),
        ("j-2", json!({"acr": "phr", "auth_time": NOW_S - 301}), Some(Reason::StepUpRequired)),
        ("j-3", json!({"acr": "phr", "auth_time": NOW_S - 300}), None),
    ];
    for (jti, rctx, denied) in logins {
        let caller = world.caller(&with_login(jti, rctx.clone())).unwrap();
        let evaluated = world.ask(&caller, &body);
        assert_eq!(evaluated.denied, denied, "{rctx}");
        if denied.is_some() {
            assert_eq!(evaluated.audit.step_ups, ["strong"]);
            let context = evaluated.reply.context.unwrap();
            let asked = &context.obligations[0].properties.step_ups[0];
            assert_eq!((asked.acr_values.as_deref(), asked.max_age), (Some("phr phrh"), Some(300)));
            assert_eq!(asked.approvals, 0, "nobody's approval would do");
        }
    }
}
