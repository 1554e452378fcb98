//! Every test as named trials, one for each API that it runs on.
//!
//! The tests have a `main` of their own (libtest-mimic) since that can do what the built-in one
//! cannot: count the real half as ignored, by name, where no programs are found, and stop the real
//! API at the end, which a `static` would never do.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, RwLock};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::cluster::{Cluster, Kind, Scope};
use crate::programs::Source;

type Running = Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

/// What a test is given.
#[derive(Clone)]
enum Test {
    /// Its part of an API that others use, too.
    Scoped(Arc<dyn Fn(Scope) -> Running + Send + Sync>),
    /// The kind of API that it is to start for itself.
    Own(Arc<dyn Fn(Kind) -> Running + Send + Sync>),
}

/// Adds async functions to a suite, to run on every kind of API:
/// `on_both!(suite, "file", first_test, second_test)`.
#[macro_export]
macro_rules! on_both {
    ($suite:expr, $file:expr, $($test:ident),+ $(,)?) => {
        $($suite.add(
            &format!("{}::{}", $file, stringify!($test)),
            $crate::cluster::Kind::ALL,
            $crate::suite::Manner::Together,
            $test,
        );)+
    };
}

/// The tests of one program.
#[derive(Default)]
pub struct Suite {
    tests: Vec<Entry>,
}

struct Entry {
    name: String,
    kinds: &'static [Kind],
    manner: Manner,
    /// What it needs beside the API and is not there.
    lacks: Option<String>,
    test: Test,
}

/// How a test shares the real API with others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Side by side: it sees and changes only what is its own.
    Together,
    /// By itself: it changes what others would see, such as the default class.
    Alone,
}

impl Suite {
    /// Adds a test; it runs once on each of `kinds`.
    pub fn add<F>(
        &mut self,
        name: &str,
        kinds: &'static [Kind],
        manner: Manner,
        test: impl Fn(Scope) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = anyhow::Result<()>> + 'static,
    {
        let test = Test::Scoped(Arc::new(move |scope| Box::pin(test(scope))));
        self.tests.push(Entry {
            name: name.to_owned(),
            kinds,
            manner,
            lacks: None,
            test,
        });
    }

    /// Adds a test that starts APIs of its own, since it kills them or makes them forget.
    pub fn add_own<F>(
        &mut self,
        name: &str,
        kinds: &'static [Kind],
        test: impl Fn(Kind) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = anyhow::Result<()>> + 'static,
    {
        self.add_own_unless(name, kinds, None, test);
    }

    /// The same of one that cannot run where it lacks something: then it is counted as ignored, by name.
    pub fn add_own_unless<F>(
        &mut self,
        name: &str,
        kinds: &'static [Kind],
        lacks: Option<String>,
        test: impl Fn(Kind) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = anyhow::Result<()>> + 'static,
    {
        let test = Test::Own(Arc::new(move |kind| Box::pin(test(kind))));
        self.tests.push(Entry {
            name: name.to_owned(),
            kinds,
            manner: Manner::Together,
            lacks,
            test,
        });
    }

    /// Runs what the command line asks for and ends the process.
    pub fn run(self) -> ! {
        let missing = Source::locate().err();
        let shared = Arc::new(Shared::default());
        let mut trials = Vec::new();
        let mut skipped = 0;
        let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
        for entry in self.tests {
            if let Some(lacks) = entry.lacks {
                eprintln!("skipped: {}, {lacks}", entry.name);
                let refuse = move || Err(format!("CI runs them all: {lacks}").into());
                let trial = Trial::test(format!("skipped::{}", entry.name), refuse);
                trials.push(trial.with_ignored_flag(!is_ci));
                continue;
            }
            for kind in entry.kinds {
                let (shared, test) = (shared.clone(), entry.test.clone());
                let run = move || {
                    shared
                        .run(*kind, entry.manner, &test)
                        .map_err(|why| failed(&why))
                };
                let skip = *kind == Kind::Real && missing.is_some();
                skipped += usize::from(skip);
                let trial = Trial::test(format!("{}::{}", kind.name(), entry.name), run);
                trials.push(trial.with_ignored_flag(skip));
            }
        }
        if let Some(missing) = missing {
            eprintln!("skipped: {skipped} tests on a real kube-apiserver, {missing}");
            if is_ci {
                let refuse = move || Err(format!("CI runs them all: {missing}").into());
                trials.push(Trial::test("real::programs_are_found", refuse));
            }
        }
        let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
        // The last of it: stops the real API, which `exit` would not.
        drop(shared);
        conclusion.exit()
    }
}

/// The chain of causes in one line each, without the debug form's backtrace.
fn failed(why: &anyhow::Error) -> Failed {
    format!("{why:#}").into()
}

/// The one real API, started by the first test that needs it.
#[derive(Default)]
struct Shared {
    real: OnceLock<Result<Arc<Cluster>, String>>,
    company: RwLock<()>,
}

impl Shared {
    fn run(&self, kind: Kind, manner: Manner, test: &Test) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let test = match test {
            Test::Scoped(test) => test,
            Test::Own(test) => return runtime.block_on(test(kind)),
        };
        let cluster = match kind {
            Kind::Real => self.real(&runtime)?,
            kind => Arc::new(runtime.block_on(Cluster::start(kind))?),
        };
        let test = async { test(Scope::new(cluster).await?).await };
        // A test that failed by panic poisons the lock, which guards no data.
        match (kind, manner) {
            (Kind::Real, Manner::Together) => {
                let _together = self.company.read().unwrap_or_else(|lock| lock.into_inner());
                runtime.block_on(test)
            }
            (Kind::Real, Manner::Alone) => {
                let _alone = self
                    .company
                    .write()
                    .unwrap_or_else(|lock| lock.into_inner());
                runtime.block_on(test)
            }
            _ => runtime.block_on(test),
        }
    }

    fn real(&self, runtime: &tokio::runtime::Runtime) -> anyhow::Result<Arc<Cluster>> {
        let start = || runtime.block_on(Cluster::start(Kind::Real)).map(Arc::new);
        let real = self
            .real
            .get_or_init(|| start().map_err(|why| format!("{why:#}")));
        real.clone().map_err(anyhow::Error::msg)
    }
}
