//! The end that offers a job (AGREE).

use super::Violation;
use crate::{
    closure::{Entry, Node},
    job::{Outcome, Refusal},
    limits,
    message::Answer,
    naming::NumberSet,
    path::AbsPath,
};
use std::{borrow::Borrow, sync::Arc};

/// What the requester does next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<E = Entry> {
    /// Send a blob for each of these files, in this order, then wait for the next answer.
    Send(Vec<Arc<E>>),
    /// The job was refused: the exchange is over.
    Refused(Refusal),
    /// Receive a blob for each output, in order; then the exchange is over.
    Receive(Box<Outcome>),
}

/// One job's exchange, seen from the client. `E` is what the client holds for an entry.
#[derive(Debug)]
pub struct Requester<E = Entry> {
    /// How often the provider has said what it lacks.
    rounds: usize,
    over: bool,
    /// The closure by number, ascending.
    closure: Vec<(u32, Arc<E>)>,
    /// The numbers that were asked for, ascending.
    sent: Vec<u32>,
    output_dirs: Vec<AbsPath>,
}

impl<E: Borrow<Entry>> Requester<E> {
    /// The exchange of a job that has just been offered with this closure.
    #[must_use]
    pub fn new(closure: impl IntoIterator<Item = (u32, Arc<E>)>, output_dirs: Vec<AbsPath>) -> Self {
        let mut closure: Vec<_> = closure.into_iter().collect();
        if !closure.is_sorted_by_key(|(number, _)| *number) {
            closure.sort_by_key(|(number, _)| *number);
        }
        Self { rounds: 0, over: false, closure, sent: Vec::new(), output_dirs }
    }

    /// Takes an answer.
    ///
    /// # Errors
    /// If the provider broke a rule.
    pub fn answer(&mut self, answer: Answer) -> Result<Step<E>, Violation> {
        match answer {
            _ if self.over => Err(Violation::OutOfTurn),
            Answer::Missing(_) if self.rounds == limits::MISSING_ROUNDS_MAX => Err(Violation::OutOfTurn),
            Answer::Missing(numbers) => {
                self.rounds += 1;
                self.asked(&numbers).map(Step::Send)
            }
            Answer::Refused(refusal) => {
                self.over = true;
                Ok(Step::Refused(refusal))
            }
            Answer::Done(outcome) => {
                self.over = true;
                self.check(&outcome)?;
                Ok(Step::Receive(outcome))
            }
        }
    }

    /// Everything is sent once: who asks again would make this end work for nothing.
    fn asked(&mut self, numbers: &NumberSet) -> Result<Vec<Arc<E>>, Violation> {
        let numbers = numbers.numbers().map_err(|_| Violation::NotInClosure)?;
        if numbers.iter().any(|number| self.sent.binary_search(number).is_ok()) {
            return Err(Violation::OutOfTurn);
        }
        let entry = |n: &u32| self.closure.binary_search_by_key(n, |(number, _)| *number).map(|at| &self.closure[at].1);
        let file = |n: &u32| entry(n).ok().filter(|e| matches!((***e).borrow().node, Node::File(_))).cloned();
        let files = numbers.iter().map(|n| file(n).ok_or(Violation::NotInClosure)).collect();
        self.sent.extend(numbers);
        self.sent.sort_unstable();
        files
    }

    fn check(&self, outcome: &Outcome) -> Result<(), Violation> {
        let text: usize = outcome.text.iter().map(|t| t.bytes.len()).sum();
        if text > limits::JOB_TEXT_BYTES_MAX {
            return Err(Violation::Text);
        }
        let bytes = outcome.outputs.iter().try_fold(0u64, |sum, o| sum.checked_add(o.size));
        let in_order = outcome.outputs.windows(2).all(|pair| pair[0].path < pair[1].path);
        let allowed = |path: &AbsPath| path.parent().is_some_and(|dir| self.output_dirs.contains(&dir));
        if outcome.outputs.len() > limits::JOB_OUTPUTS_MAX
            || bytes.is_none_or(|b| b > limits::JOB_OUTPUT_BYTES_MAX)
            || !in_order
            || !outcome.outputs.iter().all(|o| o.size <= limits::BLOB_BYTES_MAX && allowed(&o.path))
        {
            return Err(Violation::Output);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        closure::File,
        digest::Digest,
        job::{Exit, Output, Usage},
    };

    fn path(p: &str) -> AbsPath {
        AbsPath::new(p).expect("normal")
    }

    fn requester() -> Requester {
        let file = File { digest: Digest::of(b""), size: 0, mtime_s: 0, mtime_ns: 0, executable: false, inode: 0 };
        let entries = [
            (4, Arc::new(Entry { path: path("/w/a.c"), node: Node::File(file) })),
            (5, Arc::new(Entry { path: path("/w"), node: Node::Directory })),
        ];
        Requester::new(entries, vec![path("/w")])
    }

    fn done(outputs: &[&str]) -> Answer {
        let output = |p: &&str| Output { path: path(p), digest: Digest::of(b""), size: 0, executable: false };
        let outputs = outputs.iter().map(output).collect();
        Answer::Done(Box::new(Outcome { exit: Exit::Code(0), text: vec![], outputs, usage: Usage::default() }))
    }

    fn missing(numbers: &[u32]) -> Answer {
        Answer::Missing(NumberSet::new(&mut numbers.to_vec()))
    }

    #[test]
    fn content_is_sent_only_for_files_of_the_closure() {
        assert!(matches!(requester().answer(missing(&[4])), Ok(Step::Send(files)) if files.len() == 1));
        for stranger in [5, 6] {
            assert_eq!(requester().answer(missing(&[4, stranger])), Err(Violation::NotInClosure));
        }
    }

    #[test]
    fn outputs_outside_of_the_jobs_directories_are_refused() {
        assert!(matches!(requester().answer(done(&["/w/a.d", "/w/a.o"])), Ok(Step::Receive(_))));
        for bad in [&["/etc/passwd"][..], &["/w/sub/a.o"], &["/w/a.o", "/w/a.d"], &["/w/a.o", "/w/a.o"], &["/w"]] {
            assert_eq!(requester().answer(done(bad)), Err(Violation::Output), "{bad:?}");
        }
    }

    #[test]
    fn nothing_comes_twice_or_after_the_end() {
        let mut r = requester();
        r.answer(missing(&[4])).expect("first");
        assert_eq!(r.answer(missing(&[4])), Err(Violation::OutOfTurn));
        let mut r = requester();
        for _ in 0..limits::MISSING_ROUNDS_MAX {
            r.answer(missing(&[])).expect("as often as allowed");
        }
        assert_eq!(r.answer(missing(&[])), Err(Violation::OutOfTurn));
        r.answer(Answer::Refused(Refusal::Busy)).expect("allowed");
        assert_eq!(r.answer(done(&[])), Err(Violation::OutOfTurn));
    }
}
