//! What the benchmarks share: seeded inputs, the setting of criterion, facts that are not times, and two threads.

use std::time::Duration;

use criterion::Criterion;
use ehrfast_core::digest;

/// Whether only a look is wanted.
#[must_use]
pub fn quick() -> bool {
    !matches!(std::env::var("QUICK").as_deref(), Err(_) | Ok("" | "0"))
}

/// One of two sizes.
#[must_use]
pub fn sized<T>(full: T, look: T) -> T {
    if quick() { look } else { full }
}

/// Few samples: the work of each is large, and all rows together have minutes.
#[must_use]
pub fn settings() -> Criterion {
    let criterion = Criterion::default()
        .sample_size(sized(15, 10))
        .warm_up_time(Duration::from_millis(sized(500, 50)))
        .measurement_time(Duration::from_millis(sized(3_000, 200)))
        .without_plots();
    #[cfg(feature = "profile")]
    let criterion = criterion.with_profiler(profile::Flames::default());
    criterion
}

/// Whether the filter on the command line leaves room for a row: inputs of the others need not be made.
#[must_use]
pub fn wanted(row: &str) -> bool {
    std::env::args().skip(1).filter(|told| told.starts_with('^')).all(|told| told.contains(row))
}

/// Threads of this run, ours and the rival's.
#[must_use]
pub fn threads() -> usize {
    ehrfast_core::pool::threads()
}

/// Says a figure that is no time; the report reads it from standard output.
pub fn fact(row: &str, variant: &str, side: &str, value: f64) {
    println!("fact\t{row}\t{variant}\t{side}\t{value}");
}

/// A digest that is the same in every run.
#[must_use]
pub fn seeded(name: &str, number: u64) -> [u8; 32] {
    digest::blake3(&[name.as_bytes(), &number.to_le_bytes()].concat())
}

/// The work on each part of a slice, one thread a part; in place when this run has one thread.
pub fn on_threads<T: Sync, R: Send>(items: &[T], work: impl Fn(&[T]) -> R + Sync) -> Vec<R> {
    if threads() == 1 {
        return vec![work(items)];
    }
    std::thread::scope(|scope| {
        let part = items.len().div_ceil(threads());
        let running: Vec<_> = items.chunks(part).map(|part| scope.spawn(|| work(part))).collect();
        running.into_iter().map(|one| one.join().expect("the rival's thread ended")).collect()
    })
}

#[cfg(feature = "profile")]
mod profile {
    use std::fs::File;
    use std::path::Path;

    use criterion::profiler::Profiler;
    use pprof::ProfilerGuard;

    /// Samples the process while criterion runs a benchmark, and draws a flame graph of it.
    #[derive(Default)]
    pub struct Flames(Option<ProfilerGuard<'static>>);

    impl Profiler for Flames {
        fn start_profiling(&mut self, _: &str, _: &Path) {
            self.0 = Some(ProfilerGuard::new(997).expect("sampling can be started"));
        }

        fn stop_profiling(&mut self, id: &str, _: &Path) {
            let folder = std::env::var("EHRFAST_FLAMES").unwrap_or_else(|_| ".".into());
            let name: String = id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            let target = Path::new(&folder).join(format!("{name}.svg"));
            if let Some(guard) = self.0.take() {
                let report = guard.report().build().expect("samples can be gathered");
                let file = File::create(&target).expect("the flame graph can be written");
                report.flamegraph(file).expect("the flame graph can be drawn");
                println!("flames\t{}", target.display());
            }
        }
    }
}
