//! Whom a question is for: `NODE`, `NODE/PEER` or `*/PEER`, and a prefix, in any order.

use bgp::Prefix;

/// Nodes, a peer of theirs, and a prefix; what is absent means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Which {
    /// Name of the node; every node otherwise.
    pub(super) node: Option<String>,
    /// Name or address of the peer.
    pub(super) peer: Option<String>,
    /// Only this prefix and those within.
    pub(super) within: Option<Prefix>,
}

impl Which {
    /// Reads what was typed.
    ///
    /// # Errors
    /// Two of the same sort.
    pub(super) fn read(words: &[String]) -> anyhow::Result<Self> {
        let mut which = Self::default();
        let mut named = false;
        for word in words {
            let taken = match word.parse::<Prefix>() {
                Ok(prefix) => which.within.replace(prefix).is_some(),
                Err(_) => {
                    let (node, peer) = word.split_once('/').unwrap_or((word, ""));
                    let given = |text: &str| (!matches!(text, "" | "*")).then(|| text.to_owned());
                    (which.node, which.peer) = (given(node), given(peer));
                    std::mem::replace(&mut named, true)
                }
            };
            if taken {
                anyhow::bail!(
                    "'{word}' is one too many: give one NODE/PEER and one prefix at most"
                );
            }
        }
        Ok(which)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_peers_and_prefixes_in_any_order() {
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            Which::read(&words).map_err(|error| error.to_string())
        };
        let which = |node: &str, peer: &str, within: &str| {
            let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            Ok(Which { node: given(node), peer: given(peer), within: within.parse().ok() })
        };
        assert_eq!(read(&[]), which("", "", ""));
        assert_eq!(read(&["n1"]), which("n1", "", ""));
        assert_eq!(read(&["n1/10.0.0.1", "10.0.0.0/8"]), which("n1", "10.0.0.1", "10.0.0.0/8"));
        assert_eq!(read(&["fd00::/8", "*/fd00::1"]), which("", "fd00::1", "fd00::/8"));
        assert_eq!(read(&["*"]), which("", "", ""));
        assert!(read(&["n1", "n2"]).unwrap_err().contains("'n2' is one too many"));
        assert!(read(&["10.0.0.0/8", "10.0.0.0/9"]).unwrap_err().contains("one too many"));
    }
}
