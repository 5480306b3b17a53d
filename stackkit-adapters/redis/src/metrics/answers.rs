//! What is asked beside `PING` and `INFO`, in the same round trip. Each may be refused without failing the probe.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::{Info, Why};
use crate::resp::Reply;

/// After a refusal it is not asked for again for so long: each refusal is an entry in the server's `ACL LOG` and counts
/// among its errors. The interval of the inventory.
const REFUSED_PAUSE: Duration = Duration::from_secs(600);

/// One more question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Question {
    Slowlog,
    Latency,
    StopWrites,
    SavePoints,
    MinReplicas,
    Cluster,
}

impl Question {
    /// All of them; the cluster's only where it was seen to be one, because any other server answers by an error.
    pub(crate) fn all(is_cluster: bool) -> impl Iterator<Item = Self> {
        const ALWAYS: [Question; 5] =
            [Question::Slowlog, Question::Latency, Question::StopWrites, Question::SavePoints, Question::MinReplicas];
        ALWAYS.into_iter().chain(is_cluster.then_some(Self::Cluster))
    }

    pub(crate) fn command(self) -> &'static [&'static [u8]] {
        match self {
            Self::Slowlog => &[b"SLOWLOG", b"LEN"],
            Self::Latency => &[b"LATENCY", b"LATEST"],
            Self::StopWrites => &[b"CONFIG", b"GET", b"stop-writes-on-bgsave-error"],
            Self::SavePoints => &[b"CONFIG", b"GET", b"save"],
            Self::MinReplicas => &[b"CONFIG", b"GET", b"min-replicas-to-write"],
            Self::Cluster => &[b"CLUSTER", b"INFO"],
        }
    }
}

/// What was refused, and when.
#[derive(Debug, Default)]
pub(crate) struct Refusals(BTreeMap<Question, (Why, Instant)>);

impl Refusals {
    /// Whether it is worth asking.
    pub(crate) fn allow(&self, question: Question, now: Instant) -> bool {
        self.0.get(&question).is_none_or(|(_, at)| now.saturating_duration_since(*at) >= REFUSED_PAUSE)
    }

    /// Remembers what the answers refuse, and puts what was not asked among them.
    pub(crate) fn merge(&mut self, answers: &mut Answers, now: Instant) {
        for (question, answer) in &answers.0 {
            match answer {
                Err(why @ (Why::NotPermitted | Why::NotOffered)) => drop(self.0.insert(*question, (*why, now))),
                _ => drop(self.0.remove(question)),
            }
        }
        for (question, (why, _)) in &self.0 {
            answers.0.entry(*question).or_insert(Err(*why));
        }
    }
}

/// The answers so far.
#[derive(Debug, Default)]
pub(crate) struct Answers(BTreeMap<Question, Result<Reply, Why>>);

/// A kind of latency spike.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spike {
    pub(crate) name: String,
    pub(crate) latest_ms: f64,
    pub(crate) max_ms: f64,
}

impl Answers {
    pub(crate) fn put(&mut self, question: Question, reply: Reply) {
        let answer = match reply {
            Reply::Error(error) => Err(Why::of(&error)),
            reply => Ok(reply),
        };
        self.0.insert(question, answer);
    }

    fn get(&self, question: Question) -> Result<&Reply, Why> {
        let unasked = Why::NotAsked("needs a previous observation");
        self.0.get(&question).map_or(Err(unasked), |answer| answer.as_ref().map_err(|why| *why))
    }

    pub(crate) fn slowlog(&self) -> Result<f64, Why> {
        match self.get(Question::Slowlog)? {
            Reply::Integer(length) => u32::try_from(*length).map(f64::from).map_err(|_negative| Why::Refused),
            _ => Err(Why::Refused),
        }
    }

    pub(crate) fn latency(&self) -> Result<Vec<Spike>, Why> {
        let events = self.get(Question::Latency)?.array().ok_or(Why::Refused)?;
        Ok(events.iter().filter_map(spike).collect())
    }

    /// The value that a question about a setting was answered by; `NotOffered` if this version has none of that name.
    pub(crate) fn setting(&self, question: Question) -> Result<String, Why> {
        setting(self.get(question)?)
    }

    pub(crate) fn cluster(&self) -> Result<Info, Why> {
        let text = self.get(Question::Cluster)?.bytes().ok_or(Why::Refused)?;
        Ok(Info::parse(&String::from_utf8_lossy(text)))
    }
}

/// The value in the reply of `CONFIG GET` for one setting.
pub(crate) fn setting(reply: &Reply) -> Result<String, Why> {
    let pair = reply.array().ok_or(Why::Refused)?;
    let value = pair.get(1).ok_or(Why::NotOffered)?.bytes().ok_or(Why::Refused)?;
    Ok(String::from_utf8_lossy(value).into_owned())
}

/// `["command", 1700000000, 12, 340]`: name, when, the last and the longest in milliseconds.
fn spike(event: &Reply) -> Option<Spike> {
    let fields = event.array()?;
    let number = |at: usize| match fields.get(at) {
        Some(Reply::Integer(number)) => u32::try_from(*number).ok().map(f64::from),
        _ => None,
    };
    let name = String::from_utf8_lossy(fields.first()?.bytes()?).into_owned();
    Some(Spike { name, latest_ms: number(2)?, max_ms: number(3)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::ServerError;

    #[test]
    fn what_is_refused_is_not_asked_for_again_at_once() {
        let now = stackkit_core::Clock::system().instant();
        let mut refusals = Refusals::default();
        let mut answers = Answers::default();
        answers.put(Question::Slowlog, Reply::Error(ServerError { code: "NOPERM".into(), text: String::new() }));
        answers.put(Question::Latency, Reply::Error(ServerError { code: "ERR".into(), text: "odd".into() }));
        refusals.merge(&mut answers, now);
        assert!(!refusals.allow(Question::Slowlog, now + REFUSED_PAUSE / 2));
        assert!(refusals.allow(Question::Latency, now), "any other error may be gone the next time");
        let mut later = Answers::default();
        refusals.merge(&mut later, now + REFUSED_PAUSE / 2);
        assert_eq!(later.slowlog(), Err(Why::NotPermitted));
        assert!(refusals.allow(Question::Slowlog, now + REFUSED_PAUSE));
        later.put(Question::Slowlog, Reply::Integer(3));
        refusals.merge(&mut later, now + REFUSED_PAUSE);
        assert!(refusals.allow(Question::Slowlog, now + REFUSED_PAUSE), "the right was given meanwhile");
    }

    #[test]
    fn settings_and_spikes_are_read() {
        let bulk = |text: &str| Reply::Bulk(text.as_bytes().to_vec());
        assert_eq!(setting(&Reply::Array(vec![bulk("save"), bulk("")])), Ok(String::new()));
        assert_eq!(setting(&Reply::Array(Vec::new())), Err(Why::NotOffered));
        let event = Reply::Array(vec![bulk("command"), Reply::Integer(1), Reply::Integer(12), Reply::Integer(340)]);
        let mut answers = Answers::default();
        answers.put(Question::Latency, Reply::Array(vec![event, Reply::Nil]));
        let spike = Spike { name: "command".to_owned(), latest_ms: 12.0, max_ms: 340.0 };
        assert_eq!(answers.latency(), Ok(vec![spike]));
    }
}
