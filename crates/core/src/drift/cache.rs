//! Answers of AWS that are good for a while: a fleet must not ask for the same image every few minutes.

use crate::ports::{ImageInfo, ImageQuery};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// What changes without notice but seldom: the images themselves, their deprecation.
pub(super) const IMAGES_LAST: Duration = Duration::from_secs(30 * 60);
/// AWS and Canonical publish some times a week.
pub(super) const PUBLIC_PARAMETERS_LAST: Duration = Duration::from_secs(60 * 60);
/// Parameters of AWS, which also those of other publishers are below. An account's own are asked for each time: whoever
/// changes one waits for what happens.
const PUBLIC: &str = "/aws/service/";

/// A question to AWS, in the machine's own region.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Question {
    /// See `Cloud::images`.
    Images(ImageQuery),
    /// See `Cloud::parameter`.
    Parameter(String),
}

impl Question {
    /// How long an answer lasts, before jitter; `None`: it is not kept.
    pub(super) fn lasts(&self) -> Option<Duration> {
        match self {
            Question::Images(_) => Some(IMAGES_LAST),
            Question::Parameter(name) => name.starts_with(PUBLIC).then_some(PUBLIC_PARAMETERS_LAST),
        }
    }
}

/// Its answer. "There is none" is no answer to keep: what is missing is looked for again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// At least one.
    Images(Vec<ImageInfo>),
    /// Its value.
    Parameter(String),
}

/// Answers and until when they are good, by the machine's uptime: clocks jump.
#[derive(Debug, Default)]
pub struct Cache {
    entries: RefCell<BTreeMap<Question, (Answer, Duration)>>,
}

impl Cache {
    /// The answer, while it is good.
    pub(super) fn get(&self, question: &Question, uptime: Duration) -> Option<Answer> {
        let entries = self.entries.borrow();
        entries.get(question).filter(|(_, until)| uptime < *until).map(|(answer, _)| answer.clone())
    }

    /// Keeps an answer, and forgets those that are no longer good.
    pub(super) fn put(&self, question: Question, answer: Answer, uptime: Duration, until: Duration) {
        let mut entries = self.entries.borrow_mut();
        entries.retain(|_, (_, until)| uptime < *until);
        entries.insert(question, (answer, until));
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.entries.borrow_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_good_until_its_end_and_then_it_is_forgotten() {
        let cache = Cache::default();
        let question = |name: &str| Question::Parameter(name.to_owned());
        let second = Duration::from_secs;
        cache.put(question("a"), Answer::Parameter("1".to_owned()), second(0), second(10));
        assert_eq!(cache.get(&question("a"), second(9)), Some(Answer::Parameter("1".to_owned())));
        assert_eq!(cache.get(&question("a"), second(10)), None);
        assert_eq!(cache.get(&question("b"), second(0)), None);
        cache.put(question("b"), Answer::Parameter("2".to_owned()), second(10), second(20));
        assert_eq!(cache.entries.borrow().len(), 1);
        cache.clear();
        assert_eq!(cache.get(&question("b"), second(11)), None);
    }

    #[test]
    fn only_public_parameters_are_kept() {
        let lasts = |name: &str| Question::Parameter(name.to_owned()).lasts();
        assert_eq!(lasts("/aws/service/eks/x/image_id"), Some(PUBLIC_PARAMETERS_LAST));
        assert_eq!((lasts("/acme/image"), lasts("aws/service/x")), (None, None));
    }
}
