//! Threads for the runtime, which itself knows none.
//!
//! Generation hands out pieces of some microseconds, dozens of times a token, so threads wait for them awake: a thread that sleeps takes
//! longer to wake than a piece takes to run. Those that get nothing for a while make way for others, and at last they sleep. On a machine
//! with other work, a piece that nobody came for is taken back.

use std::any::Any;
use std::cell::UnsafeCell;
use std::hint;
use std::io;
use std::num::NonZeroUsize;
use std::panic::{self, AssertUnwindSafe};
use std::ptr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::thread::{self, Thread};

use siskin_runtime::Join;

/// Looks at a flag, some ten nanoseconds each, before a thread that waits lets others run between two looks.
const LOOKS_AWAKE: u32 = 4_000;
/// Looks after which a helper sleeps until it is called.
const LOOKS_MOST: u32 = 8_000;

/// Splits kernels' work over the threads of a [`with_threads`]. Results do not depend on their number.
#[derive(Clone)]
pub struct TeamJoin(Arc<Team>);

/// The caller's helpers.
struct Team {
    helpers: Vec<Helper>,
    is_over: AtomicBool,
}

/// A thread beside the caller's, and the place where work for it is left.
struct Helper {
    /// `FREE`, `CLAIMED` by someone who has work for it, with `WORK` to run, or `RUNNING` it.
    state: AtomicU32,
    work: AtomicPtr<Work>,
    is_asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

const FREE: u32 = 0;
const CLAIMED: u32 = 1;
const WORK: u32 = 2;
const RUNNING: u32 = 3;

/// Looks at a piece that was handed over before it is taken back, once there is nothing else to do.
const LOOKS_PATIENT: u32 = 100;

/// What a panic left.
type Panic = Box<dyn Any + Send>;

/// A closure on the stack of who waits for its end.
struct Work {
    /// Runs the closure behind the pointer.
    run: unsafe fn(*const ()),
    closure: *const (),
    panic: UnsafeCell<Option<Panic>>,
    is_done: AtomicBool,
}

impl Work {
    /// Runs the closure, then `before_end`, and says so.
    ///
    /// # Safety
    /// `work` and its closure live until `is_done`, and nobody else runs it.
    unsafe fn finish(work: *const Self, before_end: impl FnOnce()) {
        // SAFETY: as promised; nothing is read after `is_done` is set.
        unsafe {
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| ((*work).run)((*work).closure)));
            *(*work).panic.get() = outcome.err();
            before_end();
            (*work).is_done.store(true, Ordering::Release);
        }
    }
}

/// Waits until `is_so`; gives up after `n_looks`.
fn watch(n_looks: u32, is_so: impl Fn() -> bool) -> bool {
    for look in 0..n_looks {
        if is_so() {
            return true;
        }
        if look < LOOKS_AWAKE {
            hint::spin_loop();
        } else {
            thread::yield_now();
        }
    }
    false
}

impl Helper {
    fn new() -> Self {
        Self {
            state: AtomicU32::new(FREE),
            work: AtomicPtr::new(ptr::null_mut()),
            is_asleep: AtomicBool::new(false),
            thread: OnceLock::new(),
        }
    }

    fn claim(&self) -> bool {
        self.state.load(Ordering::Relaxed) == FREE
            && self.state.compare_exchange(FREE, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn hand(&self, work: &Work) {
        self.work.store(ptr::from_ref(work).cast_mut(), Ordering::Relaxed);
        // In one order with `is_asleep`: either the helper sees the work, or its sleep is seen here.
        self.state.store(WORK, Ordering::SeqCst);
        if self.is_asleep.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Takes back what was handed over, unless it is running.
    fn take_back(&self) -> bool {
        self.state.compare_exchange(WORK, CLAIMED, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Runs what it is handed until the team is over.
    fn serve(&self, team: &Team) {
        self.thread.get_or_init(thread::current);
        let has_work = || self.state.load(Ordering::Acquire) == WORK;
        while !team.is_over.load(Ordering::SeqCst) {
            if !watch(LOOKS_MOST, || has_work() || team.is_over.load(Ordering::Relaxed)) {
                self.is_asleep.store(true, Ordering::SeqCst);
                while self.state.load(Ordering::SeqCst) != WORK && !team.is_over.load(Ordering::SeqCst) {
                    thread::park();
                }
                self.is_asleep.store(false, Ordering::SeqCst);
            }
            if self.state.compare_exchange(WORK, RUNNING, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                let work = self.work.load(Ordering::Relaxed);
                // Who waits for the end has more work at once, and then finds the helper free.
                let is_free = || self.state.store(FREE, Ordering::Release);
                // SAFETY: whoever handed it over waits for its end, and handed it to this helper alone.
                unsafe { Work::finish(work, is_free) };
            }
        }
    }
}

/// Runs the closure behind `closure`, an `Option<F>`, unless it was run.
///
/// # Safety
/// `closure` points to an `UnsafeCell<Option<F>>` that nobody else uses.
unsafe fn run_once<F: FnOnce()>(closure: *const ()) {
    // SAFETY: as promised.
    let closure = unsafe { (*(*closure.cast::<UnsafeCell<Option<F>>>()).get()).take() };
    if let Some(closure) = closure {
        closure();
    }
}

impl Join for TeamJoin {
    fn n_threads(&self) -> usize {
        self.0.helpers.len() + 1
    }

    fn join(&self, a: impl FnOnce() + Send, b: impl FnOnce() + Send) {
        fn runner<F: FnOnce()>(_: &UnsafeCell<Option<F>>) -> unsafe fn(*const ()) {
            run_once::<F>
        }
        let Some(helper) = self.0.helpers.iter().find(|helper| helper.claim()) else {
            a();
            return b();
        };
        let closure = UnsafeCell::new(Some(b));
        let (run, closure) = (runner(&closure), ptr::from_ref(&closure).cast());
        let work = Work { run, closure, panic: UnsafeCell::new(None), is_done: AtomicBool::new(false) };
        helper.hand(&work);
        let mut outcome = panic::catch_unwind(AssertUnwindSafe(a));
        if !watch(LOOKS_PATIENT, || work.is_done.load(Ordering::Acquire)) && helper.take_back() {
            // SAFETY: the closure lives, and nobody else has it any more.
            let own = panic::catch_unwind(AssertUnwindSafe(|| unsafe { (work.run)(work.closure) }));
            helper.state.store(FREE, Ordering::Release);
            work.is_done.store(true, Ordering::Relaxed);
            outcome = outcome.and(own);
        }
        // The helper may still use what lies on this stack, so nothing leaves before its end.
        while !watch(LOOKS_MOST, || work.is_done.load(Ordering::Acquire)) {}
        if let Some(panic) = outcome.err().or(work.panic.into_inner()) {
            panic::resume_unwind(panic);
        }
    }
}

/// Ends the helpers, however the work ended.
struct Ending<'t>(&'t Team);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::SeqCst);
        self.0.helpers.iter().for_each(Helper::wake);
    }
}

/// Runs `work` on `n_threads` threads: what uses rayon in a pool of so many, and kernels by the [`TeamJoin`] that it is handed.
///
/// # Errors
/// The operating system does not give the threads.
pub fn with_threads<T: Send>(n_threads: NonZeroUsize, work: impl FnOnce(TeamJoin) -> T + Send) -> io::Result<T> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads.get()).build().map_err(io::Error::other)?;
    pool.install(|| with_team(n_threads.get() - 1, work))
}

fn with_team<T>(n_helpers: usize, work: impl FnOnce(TeamJoin) -> T) -> io::Result<T> {
    let helpers = (0..n_helpers).map(|_| Helper::new()).collect();
    let team = Arc::new(Team { helpers, is_over: AtomicBool::new(false) });
    thread::scope(|scope| {
        let _ending = Ending(&team);
        for helper in &team.helpers {
            let team = &team;
            thread::Builder::new().name("siskin-kernels".to_owned()).spawn_scoped(scope, move || helper.serve(team))?;
        }
        Ok(work(TeamJoin(Arc::clone(&team))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    /// The sum of `0..n`, a closure a number.
    fn sum(join: &TeamJoin, numbers: std::ops::Range<usize>, total: &AtomicUsize) {
        match numbers.len() {
            0 => (),
            1 => drop(total.fetch_add(numbers.start, Ordering::Relaxed)),
            n => {
                let middle = numbers.start + n / 2;
                let (left, right) = (numbers.start..middle, middle..numbers.end);
                join.join(|| sum(join, left, total), || sum(join, right, total));
            }
        }
    }

    #[test]
    fn every_piece_runs_once_however_joins_nest() {
        let total = AtomicUsize::new(0);
        let sums = with_team(3, |join| {
            assert_eq!(join.n_threads(), 4);
            for _ in 0..200 {
                sum(&join, 0..100, &total);
            }
            total.load(Ordering::Relaxed)
        });
        assert_eq!(sums.unwrap(), 200 * 4950);
    }

    #[test]
    fn a_helper_that_slept_still_comes() {
        let total = AtomicUsize::new(0);
        let ran = with_team(3, |join| {
            for pause in [0, 30, 60] {
                thread::sleep(Duration::from_millis(pause));
                // The pieces wait for each other, so they run on two threads.
                let (mine, theirs) = (AtomicBool::new(false), AtomicBool::new(false));
                let meet = |mine: &AtomicBool, theirs: &AtomicBool| {
                    mine.store(true, Ordering::SeqCst);
                    while !theirs.load(Ordering::SeqCst) {
                        thread::yield_now();
                    }
                };
                join.join(|| meet(&mine, &theirs), || meet(&theirs, &mine));
                total.fetch_add(1, Ordering::Relaxed);
            }
        });
        ran.unwrap();
        assert_eq!(total.into_inner(), 3);
    }

    #[test]
    fn a_piece_that_nobody_comes_for_is_taken_back() {
        // A helper without a thread.
        let join = TeamJoin(Arc::new(Team { helpers: vec![Helper::new()], is_over: AtomicBool::new(false) }));
        let total = AtomicUsize::new(0);
        for _ in 0..3 {
            sum(&join, 0..10, &total);
        }
        assert_eq!(total.into_inner(), 3 * 45);
        assert!(panic::catch_unwind(AssertUnwindSafe(|| join.join(|| (), || panic!("a piece's own")))).is_err());
    }

    #[test]
    fn a_panic_comes_out_once_both_halves_have_ended() {
        for is_left in [true, false] {
            let other_ended = AtomicBool::new(false);
            let ended = panic::catch_unwind(AssertUnwindSafe(|| {
                with_team(3, |join| {
                    let other = || {
                        thread::sleep(Duration::from_millis(5));
                        other_ended.store(true, Ordering::SeqCst);
                    };
                    match is_left {
                        true => join.join(|| panic!("a piece's own"), other),
                        false => join.join(other, || panic!("a piece's own")),
                    }
                })
            }));
            assert_eq!(*ended.err().unwrap().downcast::<&str>().unwrap(), "a piece's own");
            assert!(other_ended.into_inner());
        }
    }
}
