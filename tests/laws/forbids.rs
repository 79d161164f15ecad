//! Adding a `forbid` to a bundle never turns a denial, or a hold, into a forward: whoever writes one can only take away.

use proptest::prelude::*;

use crate::gatehouse::{Gatehouse, routes};
use crate::hold;
use crate::made::{plan, policy};

fn bundle(policies: &[String]) -> Result<Gatehouse, TestCaseError> {
    let named = policies.iter().enumerate().map(|(n, text)| format!("@id(\"p{n}\") {text}\n"));
    let text = named.collect::<String>();
    Gatehouse::with(&text).ok_or_else(|| TestCaseError::fail(format!("no bundle: {text}")))
}

#[test]
fn a_forbid_more_never_turns_a_denial_into_a_forward() {
    let policies = prop::collection::vec(prop_oneof![2 => policy("permit"), 1 => policy("forbid")], 1..6);
    // As often as not the records are ones that only policies judge.
    let asked = prop::collection::vec((plan(), any::<bool>(), 0..routes().len()), 6);
    let generated = (policies, policy("forbid"), any::<prop::sample::Index>(), asked);
    hold(250, generated, |(policies, forbid, place, asked)| {
        let before = bundle(&policies)?;
        let mut more = policies.clone();
        more.insert(place.index(policies.len() + 1), forbid.clone());
        let after = bundle(&more)?;
        let routes = routes();
        for (mut plan, as_is, route) in asked {
            if !as_is {
                (plan.flaw, plan.tampered, plan.age_s, plan.subject) = (None, false, 4, "alice");
                (plan.resource, plan.workflow) = (("Invoice", "inv-7"), None);
            }
            let record = plan.record();
            let was = before.once(&routes[route], &record).1;
            let is = after.once(&routes[route], &record).1;
            prop_assert!(
                was.outcome == "forward" || is.outcome != "forward",
                "`{}` made a forward of {} ({:?})",
                forbid,
                was.outcome,
                was.reason
            );
        }
        Ok(())
    });
}
