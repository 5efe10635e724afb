//! The WebAssembly engine and its settings: what is shared by every probe of a process.
//!
//! It compiles components, hands out fresh stores and ends guests that use too much. It knows nothing of Kubernetes and
//! decides nothing about verdicts. Limits of one attempt are in [`limits`], compiled code on disk in [`aot`]; which
//! components are accepted at all is [`crate::component`]'s matter.
//!
//! Decisions that are part of the evidence, because they change what a guest can see:
//! - NaN bits are canonical and relaxed SIMD is deterministic, so a probe computes the same on every CPU.
//! - No threads, no shared memory, no garbage-collected references: they are not compiled in. SIMD stays on, since the
//!   language runtimes of Python and JavaScript use it and its results are exact.
//! - The contract has synchronous functions only; the host suspends a guest on a fibre while a call waits. Component-model
//!   async is not compiled in.

pub mod aot;
pub mod limits;

use crate::contract::Adapters;
use aot::AotCache;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

/// How often the epoch advances: the grain of CPU budgets, and the longest time a guest keeps its thread from others.
pub const TICK: Duration = Duration::from_millis(10);

/// The engine as it is named in recordings: results depend on both versions.
pub const VERSION: &str = concat!("karat ", env!("CARGO_PKG_VERSION"), " (wasmtime 48)");

/// Largest memory budget that a manifest can get: the size of a slot of the pool.
pub const MAX_MEMORY_BYTES: u64 = 1 << 30;

/// Guests that may exist at one time in a process. Above it, starting another one fails.
pub const MAX_GUESTS: u32 = 64;

/// Stack of a guest. Part of the evidence: deep recursion ends at the same depth everywhere.
const MAX_WASM_STACK: usize = 512 << 10;

/// Stack of a fibre: the guest's, and what host functions need on top of it.
const FIBRE_STACK: usize = 4 << 20;

/// Core instances that one component may bring. A Rust probe has 3, one from JavaScript about 12, one from Python 38.
const CORE_INSTANCES_PER_GUEST: u32 = 64;

/// Tables that one component may bring, counted as above.
const TABLES_PER_GUEST: u32 = 16;

/// Memories that one component may bring.
const MEMORIES_PER_GUEST: u32 = 4;

/// How to build an [`Engine`].
#[derive(Clone, Debug, Default)]
pub struct EngineOptions {
    /// Folder for compiled code. It is created with mode 0700; a folder that others can write to is not used. Without
    /// one, every load compiles.
    pub cache: Option<PathBuf>,
    /// Takes memory from the system for every guest, instead of a pool that is reserved once. Slower to start a guest;
    /// for processes whose address space is limited. The engine falls back to it by itself when the pool cannot be reserved.
    pub on_demand: bool,
}

/// Where the memory of guests comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allocator {
    /// A pool, reserved once.
    Pool,
    /// The system, for each guest; the text says why.
    OnDemand(String),
}

/// Trouble while building an engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime refused the settings, in both ways of allocation.
    #[error("the WebAssembly engine cannot start on this machine: {0:#}")]
    Start(wasmtime::Error),
    /// The functions of the contract could not be registered: a defect of this program.
    #[error("the functions of the contract cannot be registered: {0:#}")]
    Contract(wasmtime::Error),
    /// The thread that ends endless loops could not start.
    #[error("the ticker thread cannot start: {0}")]
    Ticker(std::io::Error),
}

/// Compiles and starts guests. Cheap to clone; one is enough for a process.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    wasmtime: wasmtime::Engine,
    ticks: Arc<AtomicU64>,
    cache: Option<AotCache>,
    allocator: Allocator,
    adapters: Adapters,
}

impl Engine {
    /// Builds the engine and starts its ticker thread, which ends with the last clone.
    ///
    /// # Errors
    /// [`EngineError`] when the machine offers no way to run WebAssembly.
    pub fn new(options: &EngineOptions) -> Result<Engine, EngineError> {
        let (wasmtime, allocator) = if options.on_demand {
            (on_demand()?, Allocator::OnDemand("asked for".to_owned()))
        } else {
            match wasmtime::Engine::new(&config(pool())) {
                Ok(engine) => (engine, Allocator::Pool),
                // A sandbox or `ulimit -v` may forbid the reservation of some hundred GiB of addresses.
                Err(error) => (on_demand()?, Allocator::OnDemand(format!("{error:#}"))),
            }
        };
        let adapters = Adapters::new(&wasmtime).map_err(EngineError::Contract)?;
        let cache = options
            .cache
            .as_ref()
            .map(|folder| AotCache::new(folder.clone(), &wasmtime));
        let shared = Arc::new(Shared {
            wasmtime,
            ticks: Arc::new(AtomicU64::new(0)),
            cache,
            allocator,
            adapters,
        });
        start_ticker(&shared).map_err(EngineError::Ticker)?;
        Ok(Engine { shared })
    }

    /// Where the memory of guests comes from.
    pub fn allocator(&self) -> &Allocator {
        &self.shared.allocator
    }

    /// Compiles a component, or loads it from the cache. The digest is the one of the bytes, as `sha256:…`.
    pub(crate) fn compile(
        &self,
        digest: &str,
        bytes: &[u8],
    ) -> wasmtime::Result<wasmtime::component::Component> {
        match &self.shared.cache {
            Some(cache) => cache.load_or_compile(&self.shared.wasmtime, digest, bytes),
            None => wasmtime::component::Component::from_binary(&self.shared.wasmtime, bytes),
        }
    }

    pub(crate) fn wasmtime(&self) -> &wasmtime::Engine {
        &self.shared.wasmtime
    }

    pub(crate) fn adapters(&self) -> &Adapters {
        &self.shared.adapters
    }

    /// Ticks since the engine started, for CPU meters.
    pub(crate) fn ticks(&self) -> Arc<AtomicU64> {
        self.shared.ticks.clone()
    }
}

fn on_demand() -> Result<wasmtime::Engine, EngineError> {
    wasmtime::Engine::new(&config(InstanceAllocationStrategy::OnDemand)).map_err(EngineError::Start)
}

/// The settings that both ways of allocation share; compiled code is good for either.
fn config(strategy: InstanceAllocationStrategy) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .concurrency_support(false)
        .epoch_interruption(true)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        .wasm_memory64(false)
        .max_wasm_stack(MAX_WASM_STACK)
        .async_stack_size(FIBRE_STACK)
        .allocation_strategy(strategy);
    config
}

/// Sizes that held guests from Rust, JavaScript and Python.
fn pool() -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(MAX_GUESTS)
        .total_core_instances(MAX_GUESTS * CORE_INSTANCES_PER_GUEST)
        .total_memories(MAX_GUESTS * 2)
        .total_tables(MAX_GUESTS * TABLES_PER_GUEST)
        .total_stacks(MAX_GUESTS)
        .max_core_instances_per_component(CORE_INSTANCES_PER_GUEST)
        .max_memories_per_component(MEMORIES_PER_GUEST)
        .max_tables_per_component(TABLES_PER_GUEST)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .max_memory_size(usize::try_from(MAX_MEMORY_BYTES).unwrap_or(usize::MAX))
        .table_elements(limits::MAX_TABLE_ELEMENTS)
        // A slot that was just used by another probe is zeroed by the kernel, not kept.
        .linear_memory_keep_resident(0)
        .table_keep_resident(0)
        .async_stack_keep_resident(0);
    InstanceAllocationStrategy::Pooling(pool)
}

/// An OS thread, because an async timer would starve exactly when a guest keeps the threads of the runtime busy.
fn start_ticker(shared: &Arc<Shared>) -> std::io::Result<()> {
    let weak = Arc::downgrade(shared);
    std::thread::Builder::new()
        .name("karat-ticker".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(TICK);
                let Some(shared) = weak.upgrade() else { return };
                shared.ticks.fetch_add(1, Ordering::Relaxed);
                shared.wasmtime.increment_epoch();
            }
        })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_can_be_reserved_here_or_the_engine_says_why_not() {
        let engine = Engine::new(&EngineOptions::default()).unwrap();
        if let Allocator::OnDemand(why) = engine.allocator() {
            assert!(!why.is_empty());
        }
    }

    #[test]
    fn the_ticker_advances_and_ends_with_the_engine() {
        let engine = Engine::new(&EngineOptions {
            on_demand: true,
            ..EngineOptions::default()
        })
        .unwrap();
        let ticks = engine.ticks();
        let before = ticks.load(Ordering::Relaxed);
        while ticks.load(Ordering::Relaxed) == before {
            std::thread::yield_now();
        }
        let weak = Arc::downgrade(&engine.shared);
        drop(engine);
        // The ticker may hold the engine for the length of one increment.
        while weak.strong_count() > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn code_of_the_pool_and_of_the_system_are_interchangeable() {
        let pooled = Engine::new(&EngineOptions::default()).unwrap();
        let on_demand = Engine::new(&EngineOptions {
            on_demand: true,
            ..EngineOptions::default()
        })
        .unwrap();
        assert_eq!(
            aot::compatibility(pooled.wasmtime()),
            aot::compatibility(on_demand.wasmtime())
        );
    }
}
