//! A kernel in memory that insists on what the real one insists on: references need referents.

use std::collections::BTreeMap;

use crate::nft::{
    Actual, ActualChain, Batch, ChainName, Expr, Fingerprint, Map, MapValue, Match, Op, Operand,
    Rule, Set, Verdict,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Kernel {
    pub(super) actual: Actual,
    /// Rules as written, for the references they make.
    rules: BTreeMap<ChainName, Vec<Rule>>,
}

fn target(verdict: &Verdict) -> Option<&ChainName> {
    match verdict {
        Verdict::Jump(to) | Verdict::Goto(to) => Some(to),
        _ => None,
    }
}

impl Kernel {
    /// All or nothing.
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<(), String> {
        let mut next = self.clone();
        for op in &batch.ops {
            next.step(op).map_err(|error| format!("{} {}: {error}", op.verb(), op.subject()))?;
        }
        *self = next;
        Ok(())
    }

    fn step(&mut self, op: &Op) -> Result<(), &'static str> {
        if matches!(op, Op::AddTable) {
            self.actual.exists = true;
            return Ok(());
        }
        if !self.actual.exists {
            return Err("no table");
        }
        match op {
            Op::AddTable => Ok(()),
            Op::AddChain(..) | Op::DeleteChain(_) | Op::FlushChain(_) | Op::AddRules(_) => {
                self.chain_step(op)
            }
            _ => self.set_step(op),
        }
    }

    fn chain_step(&mut self, op: &Op) -> Result<(), &'static str> {
        let chains = &mut self.actual.chains;
        match op {
            Op::AddChain(name, base) => {
                let chain = ActualChain { base: *base, rules: Vec::new() };
                let before = chains.insert(name.clone(), chain);
                before.map_or(Ok(()), |_| Err("exists"))
            }
            Op::FlushChain(name) => {
                chains.get_mut(name).ok_or("no such chain")?.rules.clear();
                self.rules.remove(name);
                Ok(())
            }
            Op::DeleteChain(name) => {
                let chain = chains.remove(name).ok_or("no such chain")?;
                if !chain.rules.is_empty() || self.is_target(name) {
                    return Err("busy");
                }
                Ok(())
            }
            Op::AddRules(chain) => {
                for rule in &chain.rules {
                    self.check_rule(rule)?;
                }
                let state = self.actual.chains.get_mut(&chain.name).ok_or("no such chain")?;
                state.rules.extend(chain.rules.iter().map(|rule| Some(Fingerprint::of(rule))));
                let written = self.rules.entry(chain.name.clone()).or_default();
                written.extend(chain.rules.iter().cloned());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn set_step(&mut self, op: &Op) -> Result<(), &'static str> {
        match op {
            Op::AddSet(name, shape) => {
                let name = name.clone();
                let (key, interval) = (shape.key.clone(), shape.interval);
                let set = Set { name: name.clone(), key, interval, elements: Default::default() };
                self.actual.sets.insert(name, set).map_or(Ok(()), |_| Err("exists"))
            }
            Op::DeleteSet(name) => {
                if self.is_looked_up(name.as_str()) {
                    return Err("busy");
                }
                self.actual.sets.remove(name).map(drop).ok_or("no such set")
            }
            Op::AddElements(name, _, members) => {
                let set = self.actual.sets.get_mut(name).ok_or("no such set")?;
                set.elements.extend(members.iter().cloned());
                Ok(())
            }
            Op::DeleteElements(name, _, members) => {
                let set = self.actual.sets.get_mut(name).ok_or("no such set")?;
                let gone = members.iter().all(|member| set.elements.remove(member));
                gone.then_some(()).ok_or("no such member")
            }
            Op::AddMap(name, key, data) => {
                let (key, data) = (key.clone(), data.clone());
                let map = Map { name: name.clone(), key, data, elements: BTreeMap::new() };
                self.actual.maps.insert(name.clone(), map).map_or(Ok(()), |_| Err("exists"))
            }
            Op::DeleteMap(name) => self.actual.maps.remove(name).map(drop).ok_or("no such map"),
            Op::AddMapElements(name, _, _, members) => {
                let known = |value: &MapValue| match value {
                    MapValue::Verdict(verdict) => {
                        target(verdict).is_none_or(|to| self.actual.chains.contains_key(to))
                    }
                    MapValue::Data(_) => true,
                };
                if !members.iter().all(|(_, value)| known(value)) {
                    return Err("no such chain");
                }
                let map = self.actual.maps.get_mut(name).ok_or("no such map")?;
                let exists = members.iter().any(|(key, _)| map.elements.contains_key(key));
                map.elements.extend(members.iter().cloned());
                if exists { Err("exists") } else { Ok(()) }
            }
            Op::DeleteMapElements(name, _, keys) => {
                let map = self.actual.maps.get_mut(name).ok_or("no such map")?;
                let gone = keys.iter().all(|key| map.elements.remove(key).is_some());
                gone.then_some(()).ok_or("no such member")
            }
            _ => Ok(()),
        }
    }

    fn check_rule(&self, rule: &Rule) -> Result<(), &'static str> {
        for expr in &rule.exprs {
            if let Expr::Match(Match { operand: Operand::In(set), .. }) = expr
                && !self.actual.sets.contains_key(set)
            {
                return Err("no such set");
            }
        }
        match rule.verdict.as_ref().and_then(target) {
            Some(to) if !self.actual.chains.contains_key(to) => Err("no such chain"),
            _ => Ok(()),
        }
    }

    fn is_target(&self, name: &ChainName) -> bool {
        let rules = self.rules.values().flatten().filter_map(|rule| rule.verdict.as_ref());
        let values = self.actual.maps.values().flat_map(|map| map.elements.values());
        let verdicts = values.filter_map(|value| match value {
            MapValue::Verdict(verdict) => Some(verdict),
            MapValue::Data(_) => None,
        });
        rules.chain(verdicts).filter_map(target).any(|to| to == name)
    }

    fn is_looked_up(&self, name: &str) -> bool {
        let exprs = self.rules.values().flatten().flat_map(|rule| &rule.exprs);
        exprs.into_iter().any(|expr| {
            matches!(expr, Expr::Match(Match { operand: Operand::In(set), .. }) if set.as_str() == name)
        })
    }

    /// What an operator with a shell does.
    pub(super) fn vandalize(&mut self, number: u8) {
        match number {
            0 => *self = Self::default(),
            1 => {
                for set in self.actual.sets.values_mut() {
                    set.elements.pop_first();
                }
            }
            2 => {
                for (name, chain) in &mut self.actual.chains {
                    chain.rules.clear();
                    self.rules.remove(name);
                }
            }
            _ => {
                self.actual.maps.values_mut().for_each(|map| map.elements.clear());
                let name = ChainName::new("intruder");
                let chain = ActualChain { base: None, rules: vec![None] };
                self.actual.chains.insert(name, chain);
            }
        }
    }
}
