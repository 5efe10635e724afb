//! What it costs to start a probe: store, instance and first call through the engine (bound: 50 µs), with bare wasmtime in the
//! same settings of allocation beside it (bound: 1.3 times). Prints the ratio at the end; nothing is asserted.

use criterion::Criterion;
use karat_engine::component::{self, Probe};
use karat_engine::engine::{Engine, EngineOptions};
use karat_engine::gate::Door;
use karat_engine::manifest::section;
use karat_engine::model::{Outcome, Usage};
use karat_engine::recording::format::{EndDraft, Limits};
use karat_engine::recording::{Player, Recorder};
use karat_engine::run::guest_behind;
use karat_engine::scratch::Scratch;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

/// A probe that returns at once.
const GUEST: &str = r#"(component
  (core module $module
    (memory (export "memory") 1)
    (func (export "check") (result i32) (i32.const 16)))
  (core instance $core (instantiate $module))
  (func $check (result (result (error string)))
    (canon lift (core func $core "check") (memory (core memory $core "memory"))))
  (instance $guest (export "check" (func $check)))
  (export "karat:probe/guest@0.1.0-dev.1" (instance $guest)))"#;

const MANIFEST: &str = r#"
id = "bench"
version = "0.1.0"
title = "Measures the start"
claim = "none"
misleads = "it is no probe"
contract = "0.1.0-dev.1"
requirements = []
capabilities = []
cases = [
  { id = "none", kind = "observation", required = "always", claim = "none", expected = "none" },
]
"#;

/// wasmtime as one would use it without us: a pool, async calls, no limits, no interruption.
struct Bare {
    engine: wasmtime::Engine,
    pre: InstancePre<()>,
}

impl Bare {
    fn new(bytes: &[u8]) -> Bare {
        let mut config = Config::new();
        config
            .concurrency_support(false)
            .allocation_strategy(InstanceAllocationStrategy::Pooling(
                PoolingAllocationConfig::new(),
            ));
        let engine = wasmtime::Engine::new(&config).expect("an engine");
        let component = Component::from_binary(&engine, bytes).expect("a component");
        let pre = Linker::new(&engine)
            .instantiate_pre(&component)
            .expect("no imports");
        Bare { engine, pre }
    }

    async fn start(&self) -> bool {
        let mut store = Store::new(&self.engine, ());
        let instance = self
            .pre
            .instantiate_async(&mut store)
            .await
            .expect("an instance");
        let guest = instance
            .get_export_index(&mut store, None, "karat:probe/guest@0.1.0-dev.1")
            .expect("the export");
        let check = instance
            .get_export_index(&mut store, Some(&guest), "check")
            .expect("the function");
        let check = instance
            .get_typed_func::<(), (Result<(), String>,)>(&mut store, check)
            .expect("its type");
        check
            .call_async(&mut store, ())
            .await
            .expect("a return")
            .0
            .is_ok()
    }
}

/// The same through the engine.
struct Ours {
    engine: Engine,
    probe: Probe,
    door: Door,
    limits: Limits,
    _folder: tempfile::TempDir,
}

impl Ours {
    fn new(bytes: &[u8]) -> Ours {
        let engine = Engine::new(&EngineOptions::default()).expect("an engine");
        let bytes = section::embed(bytes, MANIFEST).expect("a manifest");
        let probe = component::load(&engine, bytes).expect("a probe");
        let folder = tempfile::tempdir().expect("a folder");
        let manifest = Arc::new(probe.manifest().clone());
        let scratch = Scratch::new("abcdefgh", Arc::clone(&manifest));
        // A guest without calls needs a door all the same; one onto an empty recording asks for no cluster.
        let recording = folder.path().join("attempt-1");
        let recorder = Recorder::create(&recording, &scratch.header()).expect("a recording");
        recorder
            .finish(EndDraft {
                outcome: Outcome::Concluded,
                usage: Usage::default(),
                alive: BTreeMap::new(),
                left_behind: Vec::new(),
            })
            .expect("an end");
        let player = Player::open(&recording).expect("a recording");
        let door = Door::replay(player, manifest);
        Ours {
            engine,
            probe,
            door,
            limits: scratch.limits,
            _folder: folder,
        }
    }

    async fn start(&self) -> bool {
        guest_behind(&self.engine, &self.probe, &self.door, &self.limits).await
            == Outcome::Concluded
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let bytes = wat::parse_str(GUEST).expect("a component");
    let bare = Bare::new(&bytes);
    let ours = Ours::new(&bytes);
    assert!(runtime.block_on(bare.start()) && runtime.block_on(ours.start()));

    let mut criterion = Criterion::default()
        .sample_size(20)
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut group = criterion.benchmark_group("start");
    group.bench_function("karat", |b| b.to_async(&runtime).iter(|| ours.start()));
    group.bench_function("bare wasmtime", |b| {
        b.to_async(&runtime).iter(|| bare.start())
    });
    group.finish();

    report(&runtime, &ours, &bare);
}

/// A ratio of two numbers from one loop is steadier than two criterion runs on a shared machine.
fn report(runtime: &Runtime, ours: &Ours, bare: &Bare) {
    const ROUNDS: u32 = 10;
    const STARTS: u32 = 500;
    let (mut with, mut without) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        for _ in 0..STARTS {
            std::hint::black_box(runtime.block_on(ours.start()));
        }
        with = with.min(begin.elapsed() / STARTS);
        let begin = Instant::now();
        for _ in 0..STARTS {
            std::hint::black_box(runtime.block_on(bare.start()));
        }
        without = without.min(begin.elapsed() / STARTS);
    }
    #[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
    {
        println!(
            "store, instance and first call: {with:?} through the engine, {without:?} bare wasmtime: {:.2} x",
            with.as_secs_f64() / without.as_secs_f64()
        );
    }
}
