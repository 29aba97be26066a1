//! Stage two: layers become one tree. Later layers win per leaf: maps are merged, lists and scalars are replaced, and
//! every value keeps its place.

use super::tree::{Kind, Node};

/// `over` laid on `base`.
pub fn merge(base: Node, over: Node) -> Node {
    match (base.kind, over.kind) {
        (Kind::Map(mut entries), Kind::Map(others)) => {
            for other in others {
                match entries.iter_mut().find(|entry| entry.key == other.key) {
                    Some(entry) => {
                        let below = std::mem::replace(&mut entry.node, Node::empty(other.place.clone()));
                        entry.node = merge(below, other.node);
                        entry.place = other.place;
                    }
                    None => entries.push(other),
                }
            }
            Kind::Map(entries).at(over.place)
        }
        (_, kind) => kind.at(over.place),
    }
}
