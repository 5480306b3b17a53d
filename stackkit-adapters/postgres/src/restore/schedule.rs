//! In which order the parts of a restore run when several connections share them. Pure: no I/O, no time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// A task that weighs less may share one round trip, and one transaction, with others like it.
pub(crate) const SMALL_WEIGHT: u64 = 20_000;

/// How many small tasks share a round trip at most: each holds locks until the transaction's end, and a server has room
/// for 6400 in its default configuration.
const BATCH_MAX: usize = 64;

/// What is known of one task beforehand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// How long it takes, in microseconds of one core as a rough guess; only comparisons matter.
    pub(crate) weight: u64,
    /// The tasks that must have ended before, by index.
    pub(crate) needs: Vec<usize>,
    /// What it locks, by number; see [`Lock`].
    pub(crate) locks: Vec<(i32, Lock)>,
    /// Whether it may share a round trip with others.
    pub(crate) may_share: bool,
}

/// How a task locks something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lock {
    /// With others of its kind: two index builds on one table.
    Shared,
    /// Alone.
    Exclusive,
}

/// The tasks that have not ended, and which of them may start.
#[derive(Debug)]
pub(crate) struct Schedule {
    nodes: Vec<Node>,
    /// How many needs of each are open.
    open: Vec<usize>,
    /// Who waits for each.
    dependents: Vec<Vec<usize>>,
    /// The time from the start of each to the end of all that needs it: the longest way first.
    urgency: Vec<u64>,
    ready: BTreeSet<(Reverse<u64>, usize)>,
    running: BTreeSet<usize>,
    /// For each lock, how many hold it shared, and whether one holds it alone.
    held: BTreeMap<i32, (usize, bool)>,
    ended: usize,
}

impl Schedule {
    /// A schedule of `nodes`. A need that is no node's index is ignored.
    pub(crate) fn new(mut nodes: Vec<Node>) -> Self {
        let count = nodes.len();
        let mut dependents = vec![Vec::new(); count];
        for (index, node) in nodes.iter_mut().enumerate() {
            node.needs.retain(|need| *need < count && *need != index);
            node.needs.sort_unstable();
            node.needs.dedup();
            node.needs.iter().for_each(|need| dependents[*need].push(index));
        }
        let open: Vec<usize> = nodes.iter().map(|node| node.needs.len()).collect();
        let urgency = urgency(&nodes, &dependents);
        let ready =
            (0..count).filter(|index| open[*index] == 0).map(|index| (Reverse(urgency[index]), index)).collect();
        Self { nodes, open, dependents, urgency, ready, running: BTreeSet::new(), held: BTreeMap::new(), ended: 0 }
    }

    /// What to run next, in this order, by one connection: one task, or several small ones. Empty if everything that is
    /// left waits for what runs.
    pub(crate) fn take(&mut self) -> Vec<usize> {
        let first = self.ready.iter().map(|(_, index)| *index).find(|index| self.is_free(*index));
        let Some(first) = first else { return Vec::new() };
        let mut batch = vec![first];
        let shares = |node: &Node| node.may_share && node.weight < SMALL_WEIGHT;
        if shares(&self.nodes[first]) {
            let more = self.ready.iter().map(|(_, index)| *index).filter(|index| *index != first);
            batch.extend(more.filter(|index| shares(&self.nodes[*index]) && self.is_free(*index)).take(BATCH_MAX - 1));
        }
        for index in &batch {
            self.ready.remove(&(Reverse(self.urgency[*index]), *index));
            self.running.insert(*index);
            hold(&mut self.held, &self.nodes[*index].locks);
        }
        batch
    }

    /// Says that these ended well.
    pub(crate) fn end(&mut self, batch: &[usize]) {
        for index in batch.iter().filter(|index| self.running.remove(*index)) {
            release(&mut self.held, &self.nodes[*index].locks);
            self.ended += 1;
            for dependent in &self.dependents[*index] {
                self.open[*dependent] -= 1;
                if self.open[*dependent] == 0 {
                    self.ready.insert((Reverse(self.urgency[*dependent]), *dependent));
                }
            }
        }
    }

    /// Whether every task ended.
    pub(crate) fn is_done(&self) -> bool {
        self.ended == self.nodes.len()
    }

    /// Whether nothing runs and nothing can start although not all has ended: the needs go in circles.
    pub(crate) fn is_stuck(&self) -> bool {
        self.running.is_empty() && self.ready.is_empty() && !self.is_done()
    }

    /// A task that did not end, to be named in an error.
    pub(crate) fn waiting(&self) -> Option<usize> {
        self.open.iter().position(|open| *open > 0)
    }

    /// How many tasks of at least [`SMALL_WEIGHT`] have not ended.
    pub(crate) fn large_left(&self) -> usize {
        let running = self.running.iter().copied();
        let ready = self.ready.iter().map(|(_, index)| *index);
        let waiting = (0..self.nodes.len()).filter(|index| self.open[*index] > 0);
        running.chain(ready).chain(waiting).filter(|index| self.nodes[*index].weight >= SMALL_WEIGHT).count()
    }

    fn is_free(&self, index: usize) -> bool {
        self.nodes[index].locks.iter().all(|(key, lock)| match self.held.get(key) {
            None => true,
            Some((_, is_alone)) => *lock == Lock::Shared && !is_alone,
        })
    }
}

/// Takes locks. Those of one batch are one connection's, so they do not stand in each other's way.
fn hold(held: &mut BTreeMap<i32, (usize, bool)>, locks: &[(i32, Lock)]) {
    for (key, lock) in locks {
        let state = held.entry(*key).or_default();
        state.0 += 1;
        state.1 |= *lock == Lock::Exclusive;
    }
}

fn release(held: &mut BTreeMap<i32, (usize, bool)>, locks: &[(i32, Lock)]) {
    for (key, _) in locks {
        if let Some(state) = held.get_mut(key) {
            state.0 = state.0.saturating_sub(1);
            if state.0 == 0 {
                held.remove(key);
            }
        }
    }
}

/// The longest way from the start of each task to the end of everything behind it. Tasks in circles never start, so what
/// they get does not matter.
fn urgency(nodes: &[Node], dependents: &[Vec<usize>]) -> Vec<u64> {
    let mut urgency: Vec<u64> = nodes.iter().map(|node| node.weight).collect();
    let mut left: Vec<usize> = dependents.iter().map(Vec::len).collect();
    let mut settled: Vec<usize> = (0..nodes.len()).filter(|index| left[*index] == 0).collect();
    while let Some(index) = settled.pop() {
        for need in &nodes[index].needs {
            let way = nodes[*need].weight.saturating_add(urgency[index]);
            urgency[*need] = urgency[*need].max(way);
            left[*need] -= 1;
            if left[*need] == 0 {
                settled.push(*need);
            }
        }
    }
    urgency
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(weight: u64, needs: &[usize]) -> Node {
        Node { weight, needs: needs.to_vec(), ..Node::default() }
    }

    #[test]
    fn the_longest_way_goes_first() {
        // A small table with a large index is loaded before a large table without one.
        let mut schedule = Schedule::new(vec![node(50_000, &[]), node(30_000, &[]), node(90_000, &[1])]);
        assert_eq!((schedule.take(), schedule.take(), schedule.take()), (vec![1], vec![0], vec![]));
        schedule.end(&[1]);
        assert_eq!(schedule.take(), vec![2]);
        schedule.end(&[2]);
        schedule.end(&[0]);
        assert!(schedule.is_done());
    }

    #[test]
    fn small_tasks_share_a_round_trip() {
        let small = Node { weight: 1, may_share: true, ..Node::default() };
        let mut schedule = Schedule::new(vec![small; 100]);
        assert_eq!((schedule.take().len(), schedule.take().len(), schedule.take().len()), (BATCH_MAX, 36, 0));
    }

    #[test]
    fn circles_are_found() {
        let mut schedule = Schedule::new(vec![node(1, &[]), node(1, &[2]), node(1, &[1])]);
        assert!(!schedule.is_stuck());
        let batch = schedule.take();
        schedule.end(&batch);
        assert!(schedule.is_stuck() && schedule.waiting() == Some(1));
    }

    /// Any acyclic tasks: each needs some of those before it.
    fn tasks() -> impl Strategy<Value = Vec<Node>> {
        let lock = prop_oneof![Just(Lock::Shared), Just(Lock::Exclusive)];
        let locks = proptest::collection::vec((0i32..4, lock), 0..3);
        let one = (0u64..40_000, proptest::collection::vec(0usize..40, 0..4), locks, any::<bool>());
        proptest::collection::vec(one, 0..40).prop_map(|raw| {
            let node = |(index, (weight, needs, locks, may_share)): (usize, (u64, Vec<usize>, _, bool))| Node {
                weight,
                needs: needs.into_iter().filter(|need| *need < index).collect(),
                locks,
                may_share,
            };
            raw.into_iter().enumerate().map(node).collect()
        })
    }

    proptest! {
        #[test]
        fn each_runs_once_after_its_needs_and_never_beside_a_lock(nodes in tasks(), workers in 1usize..5, seed in any::<u64>()) {
            let mut schedule = Schedule::new(nodes.clone());
            let (mut under_way, mut ended): (Vec<Vec<usize>>, Vec<usize>) = (Vec::new(), Vec::new());
            let mut turn = seed;
            while !schedule.is_done() {
                prop_assert!(!schedule.is_stuck());
                while under_way.len() < workers {
                    let batch = schedule.take();
                    if batch.is_empty() {
                        break;
                    }
                    for index in &batch {
                        prop_assert!(!ended.contains(index) && !under_way.iter().flatten().any(|other| other == index));
                        prop_assert!(nodes[*index].needs.iter().all(|need| ended.contains(need)));
                        let beside = under_way.iter().flatten().flat_map(|other| nodes[*other].locks.iter());
                        for (key, lock) in beside {
                            let clashes = |(own, mode): &(i32, Lock)| {
                                own == key && (*mode == Lock::Exclusive || *lock == Lock::Exclusive)
                            };
                            prop_assert!(!nodes[*index].locks.iter().any(clashes));
                        }
                    }
                    under_way.push(batch);
                }
                prop_assert!(!under_way.is_empty());
                turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let batch = under_way.remove(usize::try_from(turn >> 33).unwrap_or(0) % under_way.len());
                schedule.end(&batch);
                ended.extend(batch);
            }
            prop_assert_eq!(ended.len(), nodes.len());
        }
    }
}
