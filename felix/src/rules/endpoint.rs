//! Chains of endpoints: one per list of tiers and policies, shared by all endpoints with that list.

use super::{hash, policy, policy_chain};
use crate::{
    calc::{
        catalog::{AppliedTier, Catalog},
        model::Direction,
    },
    nft::{Chain, ChainName, Expr, Rule, Verdict},
};

/// What happens to packets of an endpoint in a direction, and the chains that takes besides those of policies.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch {
    /// Value of the endpoint in the verdict map.
    pub verdict: Verdict,
    /// Chains, the group's own first.
    pub chains: Vec<Chain>,
}

impl Dispatch {
    /// Drops everything: the endpoint is not known well enough.
    #[must_use]
    pub const fn closed() -> Self {
        Self { verdict: Verdict::Drop, chains: Vec::new() }
    }
}

/// Renders the group of endpoints to which these tiers apply.
#[must_use]
pub fn dispatch(
    context: policy::Context<'_>,
    catalog: &Catalog,
    tiers: &[AppliedTier],
    direction: Direction,
) -> Dispatch {
    if tiers.is_empty() {
        // Not isolated: the profile of the namespace allows (calico.md 3.3). No chain, so no validation by the kernel.
        return Dispatch { verdict: Verdict::Accept, chains: Vec::new() };
    }
    let name = ChainName::new(format!("group-{direction}-{}", hash(&identity(tiers))));
    let mut rules = Vec::new();
    let mut chains = Vec::new();
    for tier in tiers {
        let body = tier_rules(context, catalog, tier, direction);
        if passes(catalog, tier, direction) {
            let chain = ChainName::new(format!(
                "tier-{direction}-{}",
                hash(&identity(std::slice::from_ref(tier)))
            ));
            rules.push(
                Rule::always(Verdict::Jump(chain.clone())).comment(format!("tier {}", tier.name)),
            );
            chains.push(Chain::new(chain, body));
        } else {
            rules.extend(body);
        }
    }
    if tiers.last().is_some_and(|tier| tier.pass_by_default || passes(catalog, tier, direction)) {
        rules.push(Rule::new(vec![Expr::Counter], Verdict::Accept).comment("no tier decided"));
    }
    chains.insert(0, Chain::new(name.clone(), rules));
    // Not `goto`: a packet that entered the base chain before a transaction and looks into the map after it finds a chain that
    // did not exist in its generation, which the kernel walks as an empty one. Then it must come back to the rule behind the
    // map, which drops; `goto` would end at the base chain's policy.
    Dispatch { verdict: Verdict::Jump(name), chains }
}

/// The text that tells groups apart.
fn identity(tiers: &[AppliedTier]) -> String {
    let mut text = String::new();
    for tier in tiers {
        text.push_str(&tier.name);
        text.push('\n');
        for id in &tier.policies {
            text.push_str(&format!("\t{id}\n"));
        }
    }
    text
}

fn passes(catalog: &Catalog, tier: &AppliedTier, direction: Direction) -> bool {
    let policies = tier.policies.iter().filter_map(|id| catalog.policy(id));
    policies.into_iter().any(|policy| policy.passes(direction))
}

/// Jumps to policies; policies that pass are written out here, so that `return` leaves the tier.
fn tier_rules(
    context: policy::Context<'_>,
    catalog: &Catalog,
    tier: &AppliedTier,
    direction: Direction,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    for id in &tier.policies {
        let Some(policy) = catalog.policy(id) else { continue };
        let Some(own) = policy.rules(direction) else { continue };
        if policy.passes(direction) {
            rules.extend(policy::render(context, id, own));
        } else {
            rules.push(
                Rule::always(Verdict::Jump(policy_chain(id, direction))).comment(id.to_string()),
            );
        }
    }
    if !tier.pass_by_default {
        rules.push(
            Rule::new(vec![Expr::Counter], Verdict::Drop)
                .comment(format!("end of tier {}", tier.name)),
        );
    }
    rules
}
