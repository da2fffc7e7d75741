//! A copy of a request's body, taken as it passes, for whoever the request is mirrored to.
//!
//! The exchanges only hand over what they pass on: nothing waits for the copy, and it is never sent by them. One that outgrows its bound,
//! or whose request breaks off, is given up.

use bytes::{Bytes, BytesMut};
use std::{
    cell::{OnceCell, RefCell},
    rc::Rc,
    time::Duration,
};
use tokio::task::spawn_local;
use tokio_util::task::AbortOnDropHandle;

/// Takes a copy until it is whole.
pub(crate) struct BodyCopy(RefCell<Option<Taking>>);

struct Taking {
    body: BytesMut,
    limit: usize,
    done: Box<dyn FnOnce(Result<Bytes, NotWhole>)>,
}

/// Why there is no copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotWhole {
    TooLarge,
    /// The request broke off, nobody read all of it, or it took too long.
    Cut,
}

impl BodyCopy {
    /// `done` is called once, at the latest when this is dropped.
    pub(crate) fn new(limit: usize, done: impl FnOnce(Result<Bytes, NotWhole>) + 'static) -> Self {
        Self(RefCell::new(Some(Taking { body: BytesMut::new(), limit, done: Box::new(done) })))
    }

    /// An attempt reads the body from its beginning.
    fn again(&self) {
        if let Some(taking) = &mut *self.0.borrow_mut() {
            taking.body.clear();
        }
    }

    fn data(&self, data: &[u8]) {
        let mut state = self.0.borrow_mut();
        let Some(taking) = &mut *state else { return };
        if taking.body.len() + data.len() <= taking.limit {
            taking.body.extend_from_slice(data);
        } else if let Some(taking) = state.take() {
            drop(state);
            (taking.done)(Err(NotWhole::TooLarge));
        }
    }

    /// The body is over.
    fn whole(&self) {
        let taking = self.0.borrow_mut().take();
        if let Some(Taking { body, done, .. }) = taking {
            done(Ok(body.freeze()));
        }
    }

    fn cut(&self) {
        let taking = self.0.borrow_mut().take();
        if let Some(taking) = taking {
            (taking.done)(Err(NotWhole::Cut));
        }
    }
}

impl Drop for BodyCopy {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Copies of one request, all taken at once.
pub(crate) struct Copies {
    all: Vec<BodyCopy>,
    /// Ends with the request.
    limit: OnceCell<AbortOnDropHandle<()>>,
}

impl Copies {
    /// What is not whole after `time` is given up: each copy holds a place, and a request may last for hours.
    pub(super) fn within(all: Vec<BodyCopy>, time: Duration) -> Rc<Self> {
        let copies = Rc::new(Self { all, limit: OnceCell::new() });
        if !copies.all.is_empty() {
            let taking = Rc::downgrade(&copies);
            let limit = spawn_local(async move {
                tokio::time::sleep(time).await;
                if let Some(copies) = taking.upgrade() {
                    copies.all.iter().for_each(BodyCopy::cut);
                }
            });
            copies.limit.get_or_init(|| AbortOnDropHandle::new(limit));
        }
        copies
    }

    /// An attempt reads the body from its beginning.
    pub(super) fn again(&self) {
        self.all.iter().for_each(BodyCopy::again);
    }

    pub(super) fn data(&self, data: &[u8]) {
        self.all.iter().for_each(|copy| copy.data(data));
    }

    /// The body is over.
    pub(super) fn whole(&self) {
        self.all.iter().for_each(BodyCopy::whole);
    }
}

impl std::fmt::Debug for Copies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Copies").field(&self.all.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_takes_too_long_holds_no_place() {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let told = Rc::new(RefCell::new(vec![]));
                let heard = Rc::clone(&told);
                let copies = Copies::within(
                    vec![BodyCopy::new(4, move |copy| heard.borrow_mut().push(copy))],
                    Duration::from_secs(10),
                );
                copies.data(b"a");
                tokio::time::sleep(Duration::from_secs(11)).await;
                assert_eq!(*told.borrow(), [Err(NotWhole::Cut)]);
                copies.whole();
                assert_eq!(told.borrow().len(), 1);
            })
            .await;
    }

    #[test]
    fn a_copy_is_whole_or_none_and_told_once() {
        type Told = Rc<RefCell<Vec<Result<Bytes, NotWhole>>>>;
        let new = |told: &Told| {
            let told = Rc::clone(told);
            BodyCopy::new(4, move |copy| told.borrow_mut().push(copy))
        };
        let told = Told::default();
        let copy = new(&told);
        copy.data(b"x");
        copy.again();
        copy.data(b"ab");
        copy.data(b"cd");
        copy.whole();
        copy.whole();
        copy.data(b"later");
        drop(copy);
        let copy = new(&told);
        copy.data(b"abc");
        copy.data(b"de");
        copy.whole();
        drop(copy);
        new(&told).data(b"a");
        let expected = [Ok(Bytes::from_static(b"abcd")), Err(NotWhole::TooLarge), Err(NotWhole::Cut)];
        assert_eq!(*told.borrow(), expected);
    }
}
