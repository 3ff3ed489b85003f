//! One part of the appliance, which a reload replaces when what it was made from has changed, and no sooner.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::config::Print;

/// A part, what it was made from, and the tasks that keep it fresh. Clones are the same part; with the last of them the
/// tasks end.
pub(crate) struct Part<T> {
    value: Arc<T>,
    print: Arc<Print>,
    tasks: Arc<Tasks>,
}

#[derive(Default)]
struct Tasks(OnceLock<Vec<AbortHandle>>);

impl<T> Part<T> {
    /// `old`, where it was made from the same, else a new one.
    ///
    /// # Errors
    /// As `make`.
    pub(super) fn keep_or<E>(old: Option<&Self>, print: Print, make: impl FnOnce() -> Result<T, E>) -> Result<Self, E> {
        match old.filter(|old| *old.print == print) {
            Some(old) => Ok(old.clone()),
            None => Ok(Self { value: Arc::new(make()?), print: Arc::new(print), tasks: Arc::default() }),
        }
    }

    /// The part itself, for those who keep it.
    pub(crate) fn share(&self) -> &Arc<T> {
        &self.value
    }

    /// Whether both are one part.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.value, &other.value)
    }

    /// Starts its tasks, unless they were started before.
    pub(super) fn tend<F>(&self, runtime: &Handle, tasks: impl FnOnce(&Arc<T>) -> Vec<F>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tasks
            .0
            .get_or_init(|| tasks(&self.value).into_iter().map(|task| runtime.spawn(task).abort_handle()).collect());
    }

    /// Ends its tasks before its time.
    pub(super) fn leave_alone(&self) {
        self.tasks.end();
    }
}

impl Tasks {
    fn end(&self) {
        self.0.get().into_iter().flatten().for_each(AbortHandle::abort);
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.end();
    }
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), print: Arc::clone(&self.print), tasks: Arc::clone(&self.tasks) }
    }
}

impl<T> Deref for Part<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_is_kept_while_what_it_was_made_from_is_the_same_and_its_tasks_end_with_it() {
        let made = |old: Option<&Part<u8>>, value| Part::keep_or(old, Print::default(), || Ok::<_, ()>(value)).unwrap();
        let first = made(None, 1);
        let (alive, mut ended) = tokio::sync::mpsc::channel::<()>(1);
        let task = move |_: &Arc<u8>| {
            vec![async move {
                let _alive = alive;
                std::future::pending::<()>().await;
            }]
        };
        first.tend(&Handle::current(), task);
        first.tend(&Handle::current(), |_| -> Vec<std::future::Pending<()>> { panic!("they run") });
        let second = made(Some(&first), 2);
        assert!(second.is(&first) && *second == 1);
        drop(first);
        tokio::task::yield_now().await;
        assert!(ended.try_recv() == Err(tokio::sync::mpsc::error::TryRecvError::Empty));
        drop(second);
        assert_eq!(ended.recv().await, None);
    }
}
