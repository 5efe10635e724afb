//! What the client tells: a line of JSON a second, about the requests that ended in it. Lines are numbered, so nothing depends on
//! comparing clocks, and one that is missing is noticed.

use karat_sdk::pods::Logs;
use karat_sdk::{Error, Object, Result, Value, clock, wait};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

/// How long one reading of the log may take.
const READING: Duration = Duration::from_secs(20);
/// How much further back than the last reading is read, so that no line lies between.
const OVERLAP: Duration = Duration::from_secs(5);
/// How often the log is read while lines are waited for.
const EVERY: Duration = Duration::from_secs(1);
/// How much longer than lines take they are waited for.
const SLACK: Duration = Duration::from_secs(30);
/// The status of an answer that counts as served.
const SERVED: &str = "200";

/// The client's log.
pub(crate) struct Traffic {
    client: Object,
    lines: RefCell<BTreeMap<u64, Line>>,
    read: Cell<Option<Duration>>,
}

/// One second of the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Line {
    /// By server and status.
    answered: Vec<(String, String, u64)>,
    /// By name of the error.
    failed: Vec<(String, u64)>,
}

/// What came of the requests of some time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Requests that ended, one way or the other.
    pub(crate) ended: u64,
    /// With a status of 200.
    pub(crate) served: u64,
    /// What the others came to, in words.
    pub(crate) otherwise: Vec<String>,
}

impl Traffic {
    pub(crate) fn of(client: &Object) -> Self {
        Traffic {
            client: client.clone(),
            lines: RefCell::default(),
            read: Cell::new(None),
        }
    }

    /// Reads what was told since the last time, and gives the number of the last line; 0 before the first.
    pub(crate) fn read(&self) -> Result<u64> {
        let now = clock::elapsed();
        let mut log = Logs::of(&self.client);
        if let Some(before) = self.read.get() {
            log = log.since(now.saturating_sub(before) + OVERLAP);
        }
        let text = log.read(READING)?;
        self.read.set(Some(now));
        let mut lines = self.lines.borrow_mut();
        // A piece of a line is no JSON; it comes whole the next time.
        for told in text.lines().filter_map(parsed) {
            if let Some(n) = told["n"].as_u64() {
                lines.insert(n, Line::of(&told));
            }
        }
        Ok(lines.keys().next_back().copied().unwrap_or(0))
    }

    /// Reads once more what was told from this moment on, so that a case shows all that it rests on.
    pub(crate) fn again_from(&self, moment: Duration) -> Result<()> {
        self.read.set(Some(moment));
        self.read().map(drop)
    }

    /// Waits until the line of this number was told.
    pub(crate) fn until(&self, n: u64) -> Result<()> {
        let last = self.read()?;
        let limit = Duration::from_secs(n.saturating_sub(last)) + SLACK;
        wait::poll(
            EVERY,
            limit,
            "the client, which tells nothing any more",
            || Ok((self.read()? >= n).then_some(())),
        )
    }

    fn lines(&self, range: RangeInclusive<u64>) -> Result<Vec<Line>> {
        let lines = self.lines.borrow();
        let whole = range.map(|n| lines.get(&n).cloned());
        whole.collect::<Option<Vec<Line>>>().ok_or_else(|| {
            Error::NoAnswer("a line of the client is missing, so nothing can be said".to_owned())
        })
    }

    /// How many requests of these lines this server answered, whatever it said.
    pub(crate) fn by(&self, server: &str, range: RangeInclusive<u64>) -> Result<u64> {
        let lines = self.lines(range)?;
        let all = lines.iter().flat_map(|line| &line.answered);
        Ok(all.filter(|(by, ..)| by == server).map(|(.., n)| n).sum())
    }

    /// How many of these it answered with 200.
    pub(crate) fn served_by(&self, server: &str, range: RangeInclusive<u64>) -> Result<u64> {
        let lines = self.lines(range)?;
        let all = lines.iter().flat_map(|line| &line.answered);
        let mine = all.filter(|(by, status, _)| by == server && status == SERVED);
        Ok(mine.map(|(.., n)| n).sum())
    }

    /// Everything that came of the requests of these lines.
    pub(crate) fn told(&self, range: RangeInclusive<u64>) -> Result<Told> {
        let mut told = Told::default();
        let mut otherwise: BTreeMap<String, u64> = BTreeMap::new();
        for line in self.lines(range)? {
            for (_, status, count) in line.answered {
                told.ended += count;
                if status == SERVED {
                    told.served += count;
                } else {
                    *otherwise.entry(status).or_default() += count;
                }
            }
            for (error, count) in line.failed {
                told.ended += count;
                *otherwise.entry(error).or_default() += count;
            }
        }
        let words = otherwise.into_iter();
        told.otherwise = words
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        Ok(told)
    }
}

fn parsed(line: &str) -> Option<Value> {
    Object::parse(line).ok().map(Object::into_value)
}

impl Line {
    fn of(told: &Value) -> Self {
        let counts = |key: &str| {
            let all = told[key].as_object().into_iter().flatten();
            all.filter_map(|(what, count)| Some((what.clone(), count.as_u64()?)))
        };
        let answered = counts("answered").map(|(what, count)| {
            let (by, status) = what.rsplit_once(' ').unwrap_or(("-", &what));
            (by.to_owned(), status.to_owned(), count)
        });
        Line {
            answered: answered.collect(),
            failed: counts("failed").collect(),
        }
    }
}
