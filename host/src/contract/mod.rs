//! Between the component model and the capabilities: picks the adapter for the contract version that a component was built
//! for, and holds the state of one guest.
//!
//! An adapter only converts types and hands every call to [`crate::capability`], which hands it to the door. Generated types
//! stay inside the adapter modules. A later contract gets an adapter of its own beside the old one; both speak to the same
//! capabilities.

pub mod list;
mod v0_1_0_dev_1;

use crate::engine::Engine;
use crate::engine::limits::{
    CpuMeter, MAX_ARGUMENT_BYTES, MAX_BUILDER_BYTES, MAX_HANDLES, StoreLimits,
};
use crate::gate::{Door, Ended};
use crate::recording::format::{Failure, Limits};
use std::time::Duration;
use wasmtime::component::{Component, Linker, Resource, ResourceTable};
use wasmtime::{Store, UpdateDeadline};

/// One linker for each contract version that this engine serves.
pub(crate) struct Adapters {
    v0_1_0_dev_1: Linker<GuestState>,
}

/// A compiled component, linked and type-checked, ready for fresh stores.
#[derive(Clone)]
pub(crate) enum Prepared {
    V0_1_0Dev1(v0_1_0_dev_1::ProbePre<GuestState>),
}

impl Adapters {
    pub(crate) fn new(engine: &wasmtime::Engine) -> wasmtime::Result<Adapters> {
        Ok(Adapters {
            v0_1_0_dev_1: v0_1_0_dev_1::linker(engine)?,
        })
    }

    /// Links a component whose contract version was checked before ([`crate::component`]).
    pub(crate) fn prepare(
        &self,
        contract: &str,
        component: &Component,
    ) -> wasmtime::Result<Prepared> {
        match contract {
            v0_1_0_dev_1::VERSION => {
                let pre = self.v0_1_0_dev_1.instantiate_pre(component)?;
                v0_1_0_dev_1::ProbePre::new(pre).map(Prepared::V0_1_0Dev1)
            }
            other => Err(wasmtime::Error::msg(format!("unknown contract {other}"))),
        }
    }
}

impl Prepared {
    /// Instantiates the guest and runs its `check`. The inner result is the guest's own.
    pub(crate) async fn check(
        &self,
        store: &mut Store<GuestState>,
    ) -> wasmtime::Result<Result<(), String>> {
        match self {
            Prepared::V0_1_0Dev1(pre) => {
                let probe = pre.instantiate_async(&mut *store).await?;
                probe.karat_probe_guest().call_check(&mut *store).await
            }
        }
    }
}

/// Everything that belongs to one guest: the `T` of its store.
pub(crate) struct GuestState {
    pub(crate) door: Door,
    pub(crate) table: ResourceTable,
    pub(crate) limits: StoreLimits,
    pub(crate) cpu: CpuMeter,
    /// Bytes of text that builders were given.
    built: usize,
    /// The last line of level `error`, which the SDK's panic hook writes before it aborts.
    pub(crate) last_error: Option<String>,
}

impl GuestState {
    /// A fresh store for one attempt.
    pub(crate) fn store(engine: &Engine, door: Door, limits: &Limits) -> Store<GuestState> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        let state = GuestState {
            door,
            table,
            limits: StoreLimits::new(limits.memory_bytes),
            cpu: CpuMeter::new(engine.ticks(), Duration::from_millis(limits.cpu_ms)),
            built: 0,
            last_error: None,
        };
        let mut store = Store::new(engine.wasmtime(), state);
        store.limiter(|state| &mut state.limits);
        store.set_hostcall_fuel(MAX_ARGUMENT_BYTES);
        store.set_max_component_handles(2 * MAX_HANDLES);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut store| {
            let cpu = store.data_mut().cpu.clone();
            cpu.pause();
            if cpu.is_over() {
                return Ok(UpdateDeadline::Interrupt);
            }
            // Give the thread to others at every tick; their time is not this guest's.
            Ok(UpdateDeadline::YieldCustom(
                1,
                Box::pin(async move {
                    tokio::task::yield_now().await;
                    cpu.resume();
                }),
            ))
        });
        store
    }

    /// The way back into the guest after a host function: its time counts again, and an attempt that is over traps.
    fn back<T, E: From<Failure>>(
        &mut self,
        result: Result<T, Failure>,
    ) -> wasmtime::Result<Result<T, E>> {
        self.cpu.resume();
        match self.door.ended() {
            Some(ended) => Err(DoorEnded(ended).into()),
            None => Ok(result.map_err(E::from)),
        }
    }

    /// As [`GuestState::back`], for functions that have no error in the contract.
    fn plain<T>(&mut self, result: Result<T, Failure>) -> wasmtime::Result<T> {
        let result: Result<T, Failure> = self.back(result)?;
        result.map_err(|failure| wasmtime::Error::msg(format!("{failure:?}")))
    }

    /// As [`GuestState::back`], for functions that give out a handle.
    fn opened<T: Send + 'static, E: From<Failure>>(
        &mut self,
        result: Result<T, Failure>,
    ) -> wasmtime::Result<Result<Resource<T>, E>> {
        match self.back(result)? {
            Ok(value) => Ok(Ok(self.push(value)?)),
            Err(failure) => Ok(Err(failure)),
        }
    }

    /// Puts a value into the table of handles.
    fn push<T: Send + 'static>(&mut self, value: T) -> wasmtime::Result<Resource<T>> {
        self.table.push(value).map_err(|_| TooManyHandles.into())
    }

    /// Counts text that a builder will keep for the guest. Never given back, so that dropping cannot hide anything.
    fn hold(&mut self, bytes: usize) -> wasmtime::Result<()> {
        self.built = self.built.saturating_add(bytes);
        if self.built > MAX_BUILDER_BYTES {
            return Err(TooMuchText.into());
        }
        Ok(())
    }
}

/// The door ended the attempt.
#[derive(Debug, thiserror::Error)]
#[error("the door ended the attempt: {0:?}")]
pub(crate) struct DoorEnded(pub(crate) Ended);

/// The guest gave builders more text than it may.
#[derive(Debug, thiserror::Error)]
#[error("the guest gave its queries and targets more than {MAX_BUILDER_BYTES} bytes of text")]
pub(crate) struct TooMuchText;

/// The guest holds more handles than it may.
#[derive(Debug, thiserror::Error)]
#[error("the guest holds more than {MAX_HANDLES} handles")]
pub(crate) struct TooManyHandles;
