//! An engine that lets every endpoint be reached on TCP port 80 from 10.244.0.1 only.

use std::collections::BTreeMap;

use crate::{
    driver::{Engine, LocalRoute, Outcome},
    nft::{
        Base, Chain, ChainName, CtState, Element, Expr, Field, Hook, KeyType, Map, Rule, Table,
        Verdict,
    },
    update::{EndpointId, LocalEndpoint, Update},
};

#[derive(Default)]
pub(super) struct Simple {
    endpoints: BTreeMap<EndpointId, LocalEndpoint>,
}

impl Engine for Simple {
    fn on_update(&mut self, update: Update) {
        match update {
            Update::LocalEndpoint(id, Some(local)) => {
                self.endpoints.insert(id, local);
            }
            Update::LocalEndpoint(id, None) => {
                self.endpoints.remove(&id);
            }
            _ => {}
        }
    }

    fn flush(&mut self, table: &mut Table) -> Outcome {
        let mut map = Map::verdict("to".into(), &[KeyType::Ifname]);
        let mut outcome = Outcome::default();
        let mut routes = Vec::new();
        let mut wanted = Vec::new();
        for (id, local) in &self.endpoints {
            let name = ChainName::new(format!("ep-{}", local.host_interface));
            table.put_chain(Chain::new(name.clone(), rules(&id.container_id)));
            wanted.push(name.clone());
            let key = Element::ifname(&local.host_interface);
            map.elements.insert(key, Verdict::Goto(name).into());
            outcome.ready.push(id.clone());
            routes.extend(local.addresses.iter().map(|addr| LocalRoute {
                prefix: (*addr).into(),
                interface: Some(local.host_interface.clone()),
            }));
        }
        let stale: Vec<ChainName> = table
            .chains()
            .map(|chain| chain.name.clone())
            .filter(|name| name.as_str().starts_with("ep-") && !wanted.contains(name))
            .collect();
        for name in stale {
            table.remove_chain(&name);
        }
        table.put_map(map);
        let forward = vec![
            Rule::statements(vec![Expr::ct_state_vmap(&[(CtState::ESTABLISHED, Verdict::Accept)])]),
            Rule::statements(vec![Expr::Vmap(vec![Field::OifName], "to".into())]),
            Rule::new(vec![Expr::oifname("cali*")], Verdict::Drop),
        ];
        let base = Base::filter(Hook::Forward, 1);
        table.put_chain(Chain::base("forward".into(), base, forward));
        outcome.routes = Some(routes);
        outcome
    }
}

fn rules(container: &str) -> Vec<Rule> {
    if container == "broken" {
        return vec![Rule::always(Verdict::Jump("missing".into()))];
    }
    let allowed = vec![
        Expr::saddr("10.244.0.1/32".parse().unwrap(), crate::nft::Test::Is),
        Expr::l4proto(6),
        Expr::port(Field::ThDport, 80, 80),
    ];
    vec![Rule::new(allowed, Verdict::Accept), Rule::always(Verdict::Drop)]
}
