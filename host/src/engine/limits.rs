//! What one guest may use of the machine: memory, tables, instances, CPU time. Counts what it denied, so that the cause of
//! an abort can be named: a language runtime that gets no memory just aborts, and the trap does not say why.

use super::{MAX_MEMORY_BYTES, TICK};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use wasmtime::ResourceLimiter;

/// Elements of one table. CPython's largest has about 20,000.
pub const MAX_TABLE_ELEMENTS: usize = 50_000;

/// Core instances, memories and tables of one guest. A component from Python brings 38 instances.
const MAX_INSTANCES: usize = 64;

/// Bytes that a guest may pass to the host in one call. A body for the API server is at most 1.5 MiB there.
pub const MAX_ARGUMENT_BYTES: usize = 4 << 20;

/// Handles (queries, cursors, watches, cases) that a guest may hold at one time.
pub const MAX_HANDLES: usize = 10_000;

/// Bytes of text that a guest may give to builders (queries, targets) in one attempt; they lie in the host's memory.
pub const MAX_BUILDER_BYTES: usize = 32 << 20;

/// Memory, tables and instances of one store.
#[derive(Debug)]
pub(crate) struct StoreLimits {
    memory_cap: usize,
    memory_now: usize,
    memory_peak: usize,
    last_grant: usize,
    /// Size in bytes that was asked for when memory was last denied.
    pub(crate) denied_memory: Option<usize>,
    /// Elements that were asked for when a table was last denied.
    pub(crate) denied_table: Option<usize>,
}

impl StoreLimits {
    /// Limits for a budget of linear memory in bytes, over all memories of the guest; never more than [`MAX_MEMORY_BYTES`].
    pub(crate) fn new(memory_bytes: u64) -> StoreLimits {
        let cap = memory_bytes.min(MAX_MEMORY_BYTES);
        StoreLimits {
            memory_cap: usize::try_from(cap).unwrap_or(usize::MAX),
            memory_now: 0,
            memory_peak: 0,
            last_grant: 0,
            denied_memory: None,
            denied_table: None,
        }
    }

    /// Most bytes of linear memory that the guest held.
    pub(crate) fn memory_peak(&self) -> u64 {
        self.memory_peak as u64
    }
}

impl ResourceLimiter for StoreLimits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let grant = desired.saturating_sub(current);
        let total = self.memory_now.saturating_add(grant);
        if total > self.memory_cap {
            self.denied_memory = Some(total);
            self.last_grant = 0;
            return Ok(false);
        }
        self.memory_now = total;
        self.memory_peak = self.memory_peak.max(total);
        self.last_grant = grant;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        // May also be called after our own denial, when nothing was granted.
        if self.last_grant > 0 {
            self.denied_memory = Some(self.memory_now);
            self.memory_now = self.memory_now.saturating_sub(self.last_grant);
            self.last_grant = 0;
        }
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if desired > MAX_TABLE_ELEMENTS {
            self.denied_table = Some(desired);
            return Ok(false);
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_INSTANCES
    }

    fn memories(&self) -> usize {
        MAX_INSTANCES
    }
}

/// Counts the ticks that pass while the guest itself computes. Time in host calls and time in which other guests have the
/// thread are not counted: the meter is stopped meanwhile. Sampling by ticks is exact on average whatever the pattern of calls.
#[derive(Clone, Debug)]
pub(crate) struct CpuMeter {
    shared: Arc<Meter>,
}

#[derive(Debug)]
struct Meter {
    clock: Arc<AtomicU64>,
    mark: AtomicU64,
    spent: AtomicU64,
    budget: u64,
}

impl CpuMeter {
    /// A running meter for a budget, rounded up to whole ticks. `clock` is the engine's tick counter.
    pub(crate) fn new(clock: Arc<AtomicU64>, budget: Duration) -> CpuMeter {
        let ticks = budget.as_nanos().div_ceil(TICK.as_nanos());
        let mark = AtomicU64::new(clock.load(Ordering::Relaxed));
        CpuMeter {
            shared: Arc::new(Meter {
                clock,
                mark,
                spent: AtomicU64::new(0),
                budget: u64::try_from(ticks).unwrap_or(u64::MAX).max(1),
            }),
        }
    }

    /// The guest computes from here on.
    pub(crate) fn resume(&self) {
        let now = self.shared.clock.load(Ordering::Relaxed);
        self.shared.mark.store(now, Ordering::Relaxed);
    }

    /// The guest stops computing here.
    pub(crate) fn pause(&self) {
        let now = self.shared.clock.load(Ordering::Relaxed);
        // One thread at a time drives a guest, so a load and a store are enough.
        let since = now.saturating_sub(self.shared.mark.load(Ordering::Relaxed));
        if since > 0 {
            self.shared.mark.store(now, Ordering::Relaxed);
            self.shared.spent.fetch_add(since, Ordering::Relaxed);
        }
    }

    /// Whether more was used than the budget allows.
    pub(crate) fn is_over(&self) -> bool {
        self.shared.spent.load(Ordering::Relaxed) > self.shared.budget
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_over_all_memories_and_denials_are_remembered() {
        let mut limits = StoreLimits::new(4 << 16);
        assert!(limits.memory_growing(0, 2 << 16, None).unwrap());
        assert!(limits.memory_growing(0, 2 << 16, None).unwrap());
        assert_eq!(limits.denied_memory, None);
        assert!(!limits.memory_growing(2 << 16, 3 << 16, None).unwrap());
        assert_eq!(limits.denied_memory, Some(5 << 16));
        assert_eq!(limits.memory_peak(), 4 << 16);
    }

    #[test]
    fn a_budget_above_the_engine_s_own_is_cut() {
        let mut limits = StoreLimits::new(u64::MAX);
        let above = usize::try_from(MAX_MEMORY_BYTES).unwrap() + (1 << 16);
        assert!(!limits.memory_growing(0, above, None).unwrap());
    }

    #[test]
    fn memory_that_the_system_did_not_give_is_taken_back_and_counts_as_denied() {
        let mut limits = StoreLimits::new(1 << 20);
        assert!(limits.memory_growing(0, 1 << 16, None).unwrap());
        limits
            .memory_grow_failed(wasmtime::Error::msg("no memory"))
            .unwrap();
        assert_eq!(limits.memory_now, 0);
        assert!(limits.denied_memory.is_some());
    }

    #[test]
    fn only_ticks_between_resume_and_pause_count() {
        let clock = Arc::new(AtomicU64::new(100));
        let meter = CpuMeter::new(clock.clone(), Duration::from_millis(50));
        clock.fetch_add(3, Ordering::Relaxed);
        meter.pause();
        clock.fetch_add(1000, Ordering::Relaxed); // in a host call
        meter.resume();
        clock.fetch_add(2, Ordering::Relaxed);
        meter.pause();
        assert!(!meter.is_over());
        meter.resume();
        clock.fetch_add(1, Ordering::Relaxed);
        meter.pause();
        assert!(meter.is_over());
    }
}
