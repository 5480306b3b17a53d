//! The databases that may be left of restores, and what follows from how they are. The second part is pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use stackkit_core::Result;
use stackkit_core::backup::OldData;

use super::plan::{RecoveryAction, RecoveryPurpose, RecoveryStep, RemoveOld};
use crate::client::{Session, number, text};
use crate::plan::{OLD_MARK, STAGING_MARK, STAMP_BYTES};
use crate::sql::literal;
use crate::swap::journal::{Journal, LOCK_CLASS, MARK, State};

/// One database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) name: String,
    pub(super) oid: String,
    pub(super) comment: Option<String>,
    /// Whether clients may connect.
    pub(super) is_open: bool,
    /// Whether a session holds the lock of the restore that fills it.
    pub(super) is_locked: bool,
    pub(super) sessions: u64,
    pub(super) size_bytes: Option<u64>,
}

/// The database `target`, those named after it, and those that have a journal.
pub(super) async fn read(admin: &Session, target: &str) -> Result<Vec<Fact>> {
    // Locks of every database are listed; the key of two numbers has 2 as its last column.
    let sql = format!(
        "SELECT d.datname, d.oid, c.comment, d.datallowconn, \
         EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted \
             AND l.classid = {LOCK_CLASS} AND l.objid = hashtext(d.datname::text)::oid), \
         (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid AND a.usesysid IS NOT NULL), \
         CASE WHEN has_database_privilege(d.oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE') \
             THEN pg_database_size(d.oid) END \
         FROM pg_database d, LATERAL (SELECT shobj_description(d.oid, 'pg_database') AS comment) c \
         WHERE d.datname = {name} OR starts_with(d.datname, {staging}) OR starts_with(d.datname, {old}) \
             OR starts_with(c.comment, {mark}) ORDER BY 1",
        mark = literal(MARK),
        name = literal(target),
        staging = literal(&format!("{target}{STAGING_MARK}")),
        old = literal(&format!("{target}{OLD_MARK}")),
    );
    let fact = |row| {
        Ok(Fact {
            name: text(row, 0)?.to_owned(),
            oid: text(row, 1)?.to_owned(),
            comment: row.get(2).map(str::to_owned),
            is_open: text(row, 3)? == "t",
            is_locked: text(row, 4)? == "t",
            sessions: number(row, 5)?,
            size_bytes: row.get(6).and_then(|bytes| bytes.parse().ok()),
        })
    };
    admin.rows(&sql).await?.iter().map(fact).collect()
}

/// The other databases that restores by a handle on `target` were about, of those that have a journal.
pub(super) fn others(facts: &[Fact], target: &str) -> BTreeSet<String> {
    let of = |fact: &Fact| {
        let journal = fact.comment.as_deref().and_then(Journal::read)?;
        let (other, of) = journal.about();
        (of == Some(target)).then(|| other.to_owned())
    };
    facts.iter().filter_map(of).collect()
}

/// Only what restores by a handle on `by` left of this target.
pub(super) fn only_of(mut facts: Vec<Fact>, target: &str, by: &str) -> Vec<Fact> {
    let is_its = |fact: &Fact| fact.comment.as_deref().and_then(Journal::read).is_some_and(|j| j.about().1 == Some(by));
    facts.retain(|fact| fact.name == target || is_its(fact));
    facts
}

/// Without what restores of other databases left or are filling: what becomes of it changes no plan for this one.
pub(super) fn concerning(mut facts: Vec<Fact>, target: &str) -> Vec<Fact> {
    let is_anothers = |fact: &Fact| {
        let comment = fact.comment.as_deref()?;
        if let Some(unreadable) = Journal::unreadable(comment) {
            return Some(!is_named_after(fact, target) && unreadable.target.as_deref() != Some(target));
        }
        let journal = Journal::read(comment)?;
        let (about, of) = journal.about();
        Some(about != target && of != Some(target))
    };
    let is_anothers = |fact: &Fact| is_anothers(fact).unwrap_or(false);
    facts.retain(|fact| fact.name == target || !is_anothers(fact));
    facts
}

/// Whether a restore of this target would have given the database its name.
fn is_named_after(fact: &Fact, target: &str) -> bool {
    let rest = fact.name.strip_prefix(target);
    rest.is_some_and(|rest| rest.starts_with(STAGING_MARK) || rest.starts_with(OLD_MARK))
}

/// Everything that a plan depends on, as one text.
pub(super) fn text_of(facts: &[Fact]) -> String {
    let line = |fact: &Fact| format!("{:?}", (&fact.name, &fact.oid, &fact.comment, fact.is_open, fact.is_locked));
    facts.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What is to be done, and what is left alone.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) steps: Vec<RecoveryStep>,
    pub(super) notes: Vec<String>,
}

/// The databases of one target.
pub(super) struct Scene<'a> {
    pub(super) target: &'a str,
    pub(super) facts: &'a [Fact],
    pub(super) now: Timestamp,
}

impl Scene<'_> {
    pub(super) fn found(&self, purpose: RecoveryPurpose) -> Found {
        let mut found = Found::default();
        for fact in self.facts.iter().filter(|fact| fact.name != self.target) {
            if let Some(note) = unreadable(fact) {
                found.notes.push(note);
                continue;
            }
            match purpose {
                RecoveryPurpose::Recovery => self.recover(fact, &mut found),
                RecoveryPurpose::RemovalOfOld(which) => self.remove(fact, which, &mut found),
            }
        }
        if purpose == RecoveryPurpose::Recovery {
            self.open_target(&mut found);
        }
        found
    }

    fn live(&self) -> Option<&Fact> {
        self.facts.iter().find(|fact| fact.name == self.target)
    }

    /// The journal of a database that is about this target and has the name that a restore gave it: one that somebody
    /// renamed is theirs.
    fn journal(&self, fact: &Fact) -> Option<State> {
        let state = fact.comment.as_deref().and_then(Journal::read)?.state;
        let (target, mark) = match &state {
            State::Filling(staged) | State::Ready(staged) => (&staged.target, STAGING_MARK),
            State::Replaced(replaced) => (&replaced.target, OLD_MARK),
        };
        (target == self.target && stamp(&fact.name, mark).is_some()).then_some(state)
    }

    /// The time in the name of a database without a journal, which versions before the journal named after this
    /// target. A name that was cut is not taken for one; and none is where a journal can't be read, which may be about it.
    fn stamp_only<'f>(&self, fact: &'f Fact, mark: &str) -> Option<&'f str> {
        if self.facts.iter().any(|fact| unreadable(fact).is_some()) {
            return None;
        }
        let stamp = stamp(&fact.name, mark).filter(|_| fact.comment.as_deref().and_then(Journal::read).is_none())?;
        (fact.name.len() == self.target.len() + mark.len() + stamp.len() && fact.name.starts_with(self.target))
            .then_some(stamp)
    }

    fn recover(&self, fact: &Fact, found: &mut Found) {
        match self.journal(fact) {
            Some(State::Filling(_) | State::Ready(_)) if fact.is_locked => {
                found.notes.push(format!("the database {} is being filled by a restore that runs", fact.name));
            }
            Some(State::Filling(staged) | State::Ready(staged)) => {
                let reason = format!("a restore that began at {} and was cut short filled it", staged.started);
                found.steps.push(step(RecoveryAction::Drop, fact, reason));
            }
            Some(State::Replaced(old)) if old.old_data == OldData::Remove => {
                let reason = format!("it was replaced at {}, to be removed", old.replaced);
                self.drop_old(fact, reason, found);
            }
            Some(State::Replaced(_)) => {}
            None if stamp(&fact.name, STAGING_MARK).is_some() => self.recover_unjournaled_staging(fact, found),
            None => self.recover_unjournaled_old(fact, found),
        }
    }

    /// Versions before the journal renamed in two steps with the old database closed: what has no name between them was
    /// compared and complete.
    fn recover_unjournaled_staging(&self, fact: &Fact, found: &mut Found) {
        let Some(stamp) = self.stamp_only(fact, STAGING_MARK) else { return };
        if fact.is_locked || fact.sessions > 0 {
            let note = format!("the database {} has sessions: a restore without a journal may fill it", fact.name);
            return found.notes.push(note);
        }
        let was_put_aside = |other: &&Fact| !other.is_open && self.stamp_only(other, OLD_MARK) == Some(stamp);
        match self.facts.iter().find(was_put_aside) {
            Some(_old) if self.live().is_none() => {
                let reason = "a swap in two steps was cut short after the first one; it is complete".to_owned();
                found.steps.push(step(RecoveryAction::Rename, fact, reason));
            }
            _ => {
                let reason = "by its name, a restore that was cut short filled it".to_owned();
                found.steps.push(step(RecoveryAction::Drop, fact, reason));
            }
        }
    }

    fn recover_unjournaled_old(&self, fact: &Fact, found: &mut Found) {
        let Some(stamp) = self.stamp_only(fact, OLD_MARK).filter(|_| !fact.is_open) else { return };
        let is_its_staging = |other: &Fact| self.stamp_only(other, STAGING_MARK) == Some(stamp);
        if self.live().is_none() && !self.facts.iter().any(is_its_staging) {
            let reason = "a swap in two steps was cut short, and nothing took its place".to_owned();
            found.steps.push(step(RecoveryAction::Rename, fact, reason));
        }
        let reason = "a swap in two steps was cut short before its last one".to_owned();
        found.steps.push(step(RecoveryAction::Open, fact, reason));
    }

    /// A target that a swap in two steps closed, and did not come to rename.
    fn open_target(&self, found: &mut Found) {
        let Some(live) = self.live().filter(|live| !live.is_open) else { return };
        let is_unjournaled = |fact: &Fact| self.stamp_only(fact, STAGING_MARK).is_some();
        if self.facts.iter().any(is_unjournaled) {
            let reason = "a swap in two steps was cut short after its first one".to_owned();
            found.steps.push(step(RecoveryAction::Open, live, reason));
        }
    }

    fn remove(&self, fact: &Fact, which: RemoveOld, found: &mut Found) {
        let is_due = |until: Option<Timestamp>| which == RemoveOld::All || until.is_some_and(|time| time <= self.now);
        match self.journal(fact) {
            Some(State::Replaced(old)) if is_due(old.keep_until) => {
                let kept = old.keep_until.map_or_else(String::new, |until| format!(", to be kept until {until}"));
                self.drop_old(fact, format!("it was replaced at {}{kept}", old.replaced), found);
            }
            None if which == RemoveOld::All && self.stamp_only(fact, OLD_MARK).is_some() => {
                self.drop_old(fact, "by its name, a restore replaced it".to_owned(), found);
            }
            _ => {}
        }
    }

    fn drop_old(&self, fact: &Fact, reason: String, found: &mut Found) {
        match self.live() {
            Some(_) => found.steps.push(step(RecoveryAction::Drop, fact, reason)),
            None => found.notes.push(format!(
                "the database {} was replaced, but there is no {}: it may hold the latest data",
                fact.name, self.target
            )),
        }
    }
}

/// What to do about a database whose journal says what this version does not know: by its name alone it would be taken
/// for something that may go.
fn unreadable(fact: &Fact) -> Option<String> {
    let unreadable = Journal::unreadable(fact.comment.as_deref()?)?;
    let name = &fact.name;
    Some(match unreadable.is_newer {
        true => format!(
            "the database {name} is left alone: a newer version of stackkit restored it, and its journal (the database's \
             comment) can't be read by this one; recover it with that version"
        ),
        false => format!(
            "the database {name} is left alone: its journal (the database's comment) can't be read, as another version of \
             stackkit wrote it or somebody changed it; recover it with that version, or look what it holds and drop it by hand"
        ),
    })
}

fn step(action: RecoveryAction, fact: &Fact, reason: String) -> RecoveryStep {
    let (database, oid) = (fact.name.clone(), fact.oid.clone());
    RecoveryStep { action, database, oid, size_bytes: fact.size_bytes, reason }
}

/// Whether a database is named as those are that a restore fills.
pub(super) fn is_staging(name: &str) -> bool {
    stamp(name, STAGING_MARK).is_some()
}

/// The time at the end of a name with `mark` before it.
fn stamp<'n>(name: &'n str, mark: &str) -> Option<&'n str> {
    let start = name.len().checked_sub(STAMP_BYTES).filter(|start| name.is_char_boundary(*start))?;
    let (before, stamp) = name.split_at(start);
    let is_stamp = stamp.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_');
    (is_stamp && before.ends_with(mark)).then_some(stamp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swap::journal::{Replaced, Staged};

    const STAMP: &str = "20261121_141303_007";

    fn fact(name: &str, state: Option<State>) -> Fact {
        let comment = state.map(|state| serde_json::to_string(&Journal::new(state)).expect("JSON"));
        let name = name.replace("STAMP", STAMP);
        Fact { oid: "7".into(), name, comment, is_open: true, is_locked: false, sessions: 0, size_bytes: None }
    }

    fn closed(name: &str) -> Fact {
        Fact { is_open: false, ..fact(name, None) }
    }

    fn filling(target: &str) -> Option<State> {
        Some(State::Filling(Staged {
            target: target.into(),
            of: None,
            target_oid: None,
            kept_as: String::new(),
            old_data: OldData::Keep,
            started: Timestamp::UNIX_EPOCH,
            pid: 1,
        }))
    }

    fn replaced(old_data: OldData, keep_until: Option<Timestamp>) -> Option<State> {
        let (target, replaced) = ("shop".into(), Timestamp::UNIX_EPOCH);
        Some(State::Replaced(Replaced {
            target,
            of: None,
            replaced,
            by: "pg".into(),
            comment: None,
            old_data,
            keep_until,
        }))
    }

    #[test]
    fn restores_of_other_databases_change_no_plan() {
        let own = || vec![fact("shop", None), fact("shop__sk_STAMP", filling("shop"))];
        let mut facts = own();
        facts.push(fact("crm__sk_STAMP", filling("crm")));
        assert_eq!(concerning(facts, "shop"), own());
    }

    #[test]
    fn what_a_newer_version_left_is_told_and_stays() {
        let newer = |name: &str, target: &str| {
            let comment = format!(r#"{{"stackkit":2,"state":"staged","target":"{target}"}}"#);
            Fact { comment: Some(comment), ..fact(name, None) }
        };
        for name in ["shop__sk_STAMP", "shop__old_STAMP"] {
            let facts = [fact("shop", None), newer(name, "shop")];
            for purpose in [RecoveryPurpose::Recovery, RecoveryPurpose::RemovalOfOld(RemoveOld::All)] {
                assert_eq!(found(&facts, purpose), (String::new(), 1), "{name}");
                let notes = Scene { target: "shop", facts: &facts, now: Timestamp::UNIX_EPOCH }.found(purpose).notes;
                assert!(notes[0].contains("recover it with that version"), "{notes:?}");
            }
        }
        let halves = [closed("shop__old_STAMP"), newer("shop__sk_STAMP", "shop")];
        assert_eq!(recovered(&halves), (String::new(), 1), "nothing is named back in its place");
        let live = [closed("shop"), newer("shop__sk_STAMP", "shop")];
        assert_eq!(recovered(&live), (String::new(), 1), "a swap of another version may have closed it");
        let others = || vec![newer("crm__sk_STAMP", "crm")];
        assert_eq!(concerning(others(), "shop"), []);
        assert_eq!(concerning(others(), "crm").len(), 1);
    }

    /// The steps as words, in order, and the number of notes.
    fn found(facts: &[Fact], purpose: RecoveryPurpose) -> (String, usize) {
        let scene = Scene { target: "shop", facts, now: Timestamp::from_second(100).expect("a time") };
        let found = scene.found(purpose);
        let word = |step: &RecoveryStep| format!("{:?} {}", step.action, step.database.replace(STAMP, "STAMP"));
        (found.steps.iter().map(word).collect::<Vec<_>>().join(", "), found.notes.len())
    }

    fn recovered(facts: &[Fact]) -> (String, usize) {
        found(facts, RecoveryPurpose::Recovery)
    }

    #[test]
    fn what_a_restore_left_goes_and_what_one_fills_stays() {
        let live = || fact("shop", None);
        let left = || fact("shop__sk_STAMP", filling("shop"));
        assert_eq!(recovered(&[live(), left()]), ("Drop shop__sk_STAMP".into(), 0));
        assert_eq!(recovered(&[left()]), ("Drop shop__sk_STAMP".into(), 0));
        assert_eq!(recovered(&[live(), Fact { is_locked: true, ..left() }]), (String::new(), 1));
        // Another target's, and one that was given another name.
        assert_eq!(recovered(&[live(), fact("shop__sk_STAMP", filling("shop2"))]), (String::new(), 0));
        assert_eq!(recovered(&[live(), fact("rescued", filling("shop"))]), (String::new(), 0));
        let removed = || fact("shop__old_STAMP", replaced(OldData::Remove, None));
        assert_eq!(recovered(&[live(), removed()]), ("Drop shop__old_STAMP".into(), 0));
        assert_eq!(recovered(&[removed()]), (String::new(), 1));
        assert_eq!(recovered(&[live(), fact("shop__old_STAMP", replaced(OldData::Keep, None))]), (String::new(), 0));
    }

    #[test]
    fn a_swap_in_two_steps_is_finished_or_undone() {
        let live = || fact("shop", None);
        let staging = || fact("shop__sk_STAMP", None);
        assert_eq!(recovered(&[live(), staging()]), ("Drop shop__sk_STAMP".into(), 0));
        assert_eq!(recovered(&[live(), Fact { sessions: 1, ..staging() }]), (String::new(), 1));
        assert_eq!(recovered(&[closed("shop"), staging()]), ("Drop shop__sk_STAMP, Open shop".into(), 0));
        let halves = [closed("shop__old_STAMP"), staging()];
        assert_eq!(recovered(&halves), ("Open shop__old_STAMP, Rename shop__sk_STAMP".into(), 0));
        assert_eq!(recovered(&[live(), closed("shop__old_STAMP")]), ("Open shop__old_STAMP".into(), 0));
        let alone = [closed("shop__old_STAMP")];
        assert_eq!(recovered(&alone), ("Rename shop__old_STAMP, Open shop__old_STAMP".into(), 0));
        // Closed by somebody else; of another database, `shop__old_1`; no time in the name.
        assert_eq!(recovered(&[closed("shop")]), (String::new(), 0));
        assert_eq!(recovered(&[live(), fact("shop__old_1__sk_STAMP", None)]), (String::new(), 0));
        assert_eq!(recovered(&[live(), fact("shop__sk_mine", None)]), (String::new(), 0));
    }

    #[test]
    fn replaced_databases_go_when_their_time_is_over_or_all_are_meant() {
        let second = |second| Some(Timestamp::from_second(second).expect("a time"));
        let expired = |facts: &[Fact]| found(facts, RecoveryPurpose::RemovalOfOld(RemoveOld::Expired));
        let all = |facts: &[Fact]| found(facts, RecoveryPurpose::RemovalOfOld(RemoveOld::All));
        let old = |until| [fact("shop", None), fact("shop__old_STAMP", replaced(OldData::Keep, until))];
        assert_eq!(expired(&old(second(99))), ("Drop shop__old_STAMP".into(), 0));
        assert_eq!(expired(&old(second(101))), (String::new(), 0));
        assert_eq!(expired(&old(None)), (String::new(), 0));
        assert_eq!(all(&old(None)), ("Drop shop__old_STAMP".into(), 0));
        assert_eq!(all(&old(second(101))[1..]), (String::new(), 1));
        assert_eq!(all(&[fact("shop", None), fact("shop__old_STAMP", None)]), ("Drop shop__old_STAMP".into(), 0));
        assert_eq!(all(&[fact("shop", None), fact("shop__sk_STAMP", filling("shop"))]), (String::new(), 0));
    }
}
