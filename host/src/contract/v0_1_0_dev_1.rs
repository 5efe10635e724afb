//! Adapter for contract 0.1.0-dev.1: generated bindings and conversions, nothing else. Every function hands its arguments to
//! [`crate::capability`] and turns the answer into the contract's types.

use super::GuestState;
use crate::capability::{
    cases, clock, kube_read, kube_write, leases, log, not_live, pods, run, settings, snapshot,
    wait, watch,
};
use crate::model::{CaseKey, Conclusion};
use crate::recording::format::Failure;
use generated::karat::probe as contract;
use generated::karat::probe::types::{Answer, Error};
use wasmtime::component::{HasSelf, Linker, Resource};

pub(crate) use generated::{Probe, ProbePre};

mod drafts;
mod streams;
mod workloads;

/// The version as components name it.
pub(crate) const VERSION: &str = "0.1.0-dev.1";

mod generated {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "probe",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "karat:probe/wait.source": crate::capability::wait::Source,
            "karat:probe/cases.case": super::OpenCase,
            "karat:probe/leases.lease": crate::capability::leases::Lease,
            "karat:probe/kube-read.cursor": crate::capability::kube_read::Cursor,
            "karat:probe/kube-read.watch": crate::capability::watch::Watch,
            "karat:probe/kube-read.query": crate::capability::kube_read::Query,
            "karat:probe/kube-write.target": crate::capability::kube_write::Target,
            "karat:probe/pods.byte-stream": crate::capability::pods::ByteStream,
            "karat:probe/pods.execution": crate::capability::pods::Execution,
            "karat:probe/pods.log-query": crate::capability::pods::LogQuery,
            "karat:probe/pods.command": crate::capability::pods::Command,
            "karat:probe/http.response": crate::capability::http::Response,
            "karat:probe/http.request": crate::capability::http::Request,
            "karat:probe/metrics.samples": crate::capability::metrics::Samples,
        },
    });
}

/// An open case.
#[expect(unreachable_pub, reason = "the generated module re-exports it")]
pub struct OpenCase(CaseKey);

/// A linker with every function of the contract.
pub(crate) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<GuestState>> {
    let mut linker = Linker::new(engine);
    Probe::add_to_linker::<_, HasSelf<GuestState>>(&mut linker, |state| state)?;
    Ok(linker)
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::Refused(text) => Error::Refused(text),
            Failure::Answered {
                code,
                reason,
                message,
                body,
            } => Error::Answered(Answer {
                code,
                reason,
                message,
                body,
            }),
            Failure::NoAnswer(text) => Error::NoAnswer(text),
            Failure::Expired => Error::Expired,
            Failure::Budget(text) => Error::Budget(text),
            Failure::Stopping => Error::Stopping,
            Failure::Malformed(text) => Error::Malformed(text),
            Failure::Other(text) => Error::Other(text),
        }
    }
}

type Answered<T> = wasmtime::Result<Result<T, Error>>;

impl contract::types::Host for GuestState {}

impl contract::run::Host for GuestState {
    async fn id(&mut self) -> wasmtime::Result<String> {
        self.cpu.pause();
        let value = run::id(&self.door);
        self.plain(value)
    }

    async fn name(&mut self, prefix: String) -> wasmtime::Result<String> {
        self.cpu.pause();
        let value = run::name(&self.door, &prefix);
        self.plain(value)
    }

    async fn namespace(&mut self, alias: String) -> Answered<String> {
        self.cpu.pause();
        let found = run::namespace(&self.door, &alias);
        self.back(found)
    }

    async fn image(&mut self, name: String) -> Answered<String> {
        self.cpu.pause();
        let found = run::image(&self.door, &name);
        self.back(found)
    }
}

impl contract::wait::HostSource for GuestState {
    async fn drop(&mut self, source: Resource<wait::Source>) -> wasmtime::Result<()> {
        self.table.delete(source)?;
        Ok(())
    }
}

impl contract::wait::Host for GuestState {
    async fn any(
        &mut self,
        sources: Vec<Resource<wait::Source>>,
        timeout: u32,
    ) -> Answered<Vec<u32>> {
        let mut waited = Vec::with_capacity(sources.len());
        for source in &sources {
            waited.push(self.table.get(source)?.clone());
        }
        self.cpu.pause();
        let ready = wait::any(&self.door, &waited, timeout).await;
        self.back(ready)
    }
}

impl contract::clock::Host for GuestState {
    async fn now(&mut self) -> wasmtime::Result<String> {
        self.cpu.pause();
        let value = clock::now(&self.door);
        self.plain(value)
    }

    async fn elapsed(&mut self) -> wasmtime::Result<u32> {
        self.cpu.pause();
        let value = clock::elapsed(&self.door);
        self.plain(value)
    }
}

impl contract::log::Host for GuestState {
    async fn write(&mut self, level: String, text: String) -> wasmtime::Result<()> {
        if level == "error" {
            self.limits.denied_memory = None;
            self.last_error = Some(text.chars().take(1000).collect());
        }
        self.cpu.pause();
        let written = log::write(&self.door, &level, &text);
        self.plain(written)
    }
}

impl contract::settings::Host for GuestState {
    async fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        self.cpu.pause();
        let value = settings::get(&self.door, &key);
        self.plain(value)
    }
}

impl contract::cases::HostCase for GuestState {
    async fn observe(
        &mut self,
        this: Resource<OpenCase>,
        name: String,
        value: String,
    ) -> wasmtime::Result<()> {
        let case = &self.table.get(&this)?.0;
        self.cpu.pause();
        let observed = cases::observe(&self.door, case, &name, &value);
        self.plain(observed)
    }

    async fn conclude(
        &mut self,
        this: Resource<OpenCase>,
        outcome: contract::cases::Outcome,
    ) -> Answered<()> {
        use contract::cases::Outcome;
        let case = self.table.delete(this)?.0;
        let conclusion = match outcome {
            Outcome::Pass => Conclusion::Pass,
            Outcome::Fail => Conclusion::Fail,
            Outcome::Unknown(text) => Conclusion::Unknown(text),
            Outcome::NotApplicable(text) => Conclusion::NotApplicable(text),
            Outcome::Other(text) => Conclusion::Other(text),
        };
        self.cpu.pause();
        let concluded = cases::conclude(&self.door, &case, conclusion).await;
        self.back(concluded)
    }

    async fn drop(&mut self, case: Resource<OpenCase>) -> wasmtime::Result<()> {
        // Dropping concludes nothing: some languages drop late or never.
        self.table.delete(case)?;
        Ok(())
    }
}

impl contract::cases::Host for GuestState {
    async fn open(&mut self, id: String, subject: String) -> Answered<Resource<OpenCase>> {
        self.cpu.pause();
        let opened = cases::open(&self.door, &id, &subject).map(OpenCase);
        self.opened(opened)
    }
}

impl contract::leases::HostLease for GuestState {
    async fn granted(&mut self, this: Resource<leases::Lease>) -> wasmtime::Result<String> {
        Ok(self.table.get(&this)?.granted().to_owned())
    }

    async fn release(&mut self, this: Resource<leases::Lease>) -> wasmtime::Result<()> {
        let lease = self.table.get(&this)?;
        self.cpu.pause();
        let released = leases::release(&self.door, lease);
        self.plain(released)
    }

    async fn drop(&mut self, lease: Resource<leases::Lease>) -> wasmtime::Result<()> {
        // Dropping gives nothing back: some languages drop late or never.
        self.table.delete(lease)?;
        Ok(())
    }
}

impl contract::leases::Host for GuestState {
    async fn acquire(
        &mut self,
        names: Vec<String>,
        timeout: u32,
    ) -> Answered<Resource<leases::Lease>> {
        self.cpu.pause();
        let granted = leases::acquire(&self.door, &names, timeout).await;
        self.opened(granted)
    }
}

impl contract::kube_read::HostCursor for GuestState {
    async fn next(&mut self, this: Resource<kube_read::Cursor>) -> Answered<Option<Vec<String>>> {
        let cursor = self.table.get_mut(&this)?;
        self.cpu.pause();
        let page = cursor.next(&self.door).await;
        self.back(page)
    }

    async fn position(&mut self, this: Resource<kube_read::Cursor>) -> wasmtime::Result<String> {
        Ok(self.table.get(&this)?.position().to_owned())
    }

    async fn drop(&mut self, cursor: Resource<kube_read::Cursor>) -> wasmtime::Result<()> {
        self.table.delete(cursor)?;
        Ok(())
    }
}

impl contract::kube_read::HostWatch for GuestState {
    async fn ready(
        &mut self,
        this: Resource<watch::Watch>,
    ) -> wasmtime::Result<Resource<wait::Source>> {
        let source = self.table.get(&this)?.source();
        self.push(source)
    }

    async fn next(
        &mut self,
        this: Resource<watch::Watch>,
    ) -> Answered<Option<contract::kube_read::Event>> {
        use contract::kube_read::Event;
        let watch = self.table.get(&this)?;
        self.cpu.pause();
        let next = watch.next(&self.door);
        self.back(next.map(|event| {
            event.map(|event| match event.kind.as_str() {
                "added" => Event::Added(event.text),
                "modified" => Event::Modified(event.text),
                "deleted" => Event::Deleted(event.text),
                "synced" => Event::Synced(event.text),
                "gap" => Event::Gap(event.text),
                _ => Event::Other(event.text),
            })
        }))
    }

    async fn close(&mut self, this: Resource<watch::Watch>) -> wasmtime::Result<()> {
        let watch = self.table.get_mut(&this)?;
        self.cpu.pause();
        let closed = watch.close(&self.door);
        self.plain(closed)
    }

    async fn drop(&mut self, watch: Resource<watch::Watch>) -> wasmtime::Result<()> {
        self.table.delete(watch)?;
        Ok(())
    }
}

impl contract::kube_read::HostQuery for GuestState {
    async fn new(
        &mut self,
        api_version: String,
        resource_name: String,
    ) -> wasmtime::Result<Resource<kube_read::Query>> {
        self.hold(api_version.len() + resource_name.len())?;
        self.push(kube_read::Query::new(api_version, resource_name))
    }

    async fn in_namespace(
        &mut self,
        this: Resource<kube_read::Query>,
        name: String,
    ) -> wasmtime::Result<()> {
        self.hold(name.len())?;
        self.table.get_mut(&this)?.namespace = Some(name);
        Ok(())
    }

    async fn labels(
        &mut self,
        this: Resource<kube_read::Query>,
        selector: String,
    ) -> wasmtime::Result<()> {
        self.hold(selector.len())?;
        self.table.get_mut(&this)?.labels = selector;
        Ok(())
    }

    async fn fields(
        &mut self,
        this: Resource<kube_read::Query>,
        selector: String,
    ) -> wasmtime::Result<()> {
        self.hold(selector.len())?;
        self.table.get_mut(&this)?.fields = selector;
        Ok(())
    }

    async fn keep(
        &mut self,
        this: Resource<kube_read::Query>,
        paths: Vec<String>,
    ) -> wasmtime::Result<()> {
        self.hold(
            paths
                .iter()
                .map(|path| path.len() + size_of::<String>())
                .sum(),
        )?;
        self.table.get_mut(&this)?.keep.extend(paths);
        Ok(())
    }

    async fn get(&mut self, this: Resource<kube_read::Query>, name: String) -> Answered<String> {
        let query = self.table.get(&this)?;
        self.cpu.pause();
        let object = kube_read::get(&self.door, query, &name).await;
        self.back(object)
    }

    async fn open_list(
        &mut self,
        this: Resource<kube_read::Query>,
    ) -> Answered<Resource<kube_read::Cursor>> {
        let query = self.table.get(&this)?;
        self.cpu.pause();
        let opened = kube_read::open_list(&self.door, query);
        self.opened(opened)
    }

    async fn open_snapshot(
        &mut self,
        this: Resource<kube_read::Query>,
    ) -> Answered<Resource<kube_read::Cursor>> {
        let query = self.table.get(&this)?;
        self.cpu.pause();
        let opened = snapshot::open_snapshot(&self.door, query).await;
        self.opened(opened)
    }

    async fn open_watch(
        &mut self,
        this: Resource<kube_read::Query>,
    ) -> Answered<Resource<watch::Watch>> {
        let query = self.table.get(&this)?;
        self.cpu.pause();
        let opened = watch::open_watch(&self.door, query).await;
        self.opened(opened)
    }

    async fn drop(&mut self, query: Resource<kube_read::Query>) -> wasmtime::Result<()> {
        self.table.delete(query)?;
        Ok(())
    }
}

impl contract::kube_read::Host for GuestState {
    async fn discover(&mut self) -> Answered<String> {
        self.cpu.pause();
        let found = kube_read::discover(&self.door).await;
        self.back(found)
    }

    async fn raw(&mut self, path: String) -> Answered<contract::kube_read::RawAnswer> {
        self.cpu.pause();
        let answer = kube_read::raw(&self.door, &path).await;
        self.back(answer.map(|answer| contract::kube_read::RawAnswer {
            code: answer.code,
            content_type: answer.content_type,
            body: answer.body,
        }))
    }
}

impl contract::kube_write::HostTarget for GuestState {
    async fn new(
        &mut self,
        api_version: String,
        resource_name: String,
    ) -> wasmtime::Result<Resource<kube_write::Target>> {
        self.hold(api_version.len() + resource_name.len())?;
        self.push(kube_write::Target::new(api_version, resource_name))
    }

    async fn in_namespace(
        &mut self,
        this: Resource<kube_write::Target>,
        name: String,
    ) -> wasmtime::Result<()> {
        self.hold(name.len())?;
        self.table.get_mut(&this)?.namespace = Some(name);
        Ok(())
    }

    async fn dry_run(&mut self, this: Resource<kube_write::Target>) -> wasmtime::Result<()> {
        self.table.get_mut(&this)?.dry_run = true;
        Ok(())
    }

    async fn create(
        &mut self,
        this: Resource<kube_write::Target>,
        manifest: String,
    ) -> Answered<String> {
        let target = self.table.get(&this)?;
        self.cpu.pause();
        let created = kube_write::create(&self.door, target, &manifest).await;
        self.back(created)
    }

    async fn replace(
        &mut self,
        this: Resource<kube_write::Target>,
        name: String,
        manifest: String,
    ) -> Answered<String> {
        let target = self.table.get(&this)?;
        self.cpu.pause();
        let done = kube_write::replace(&self.door, target, &name, &manifest).await;
        self.back(done)
    }

    async fn patch(
        &mut self,
        this: Resource<kube_write::Target>,
        name: String,
        kind: String,
        body: String,
    ) -> Answered<String> {
        let target = self.table.get(&this)?;
        self.cpu.pause();
        let done = kube_write::patch(&self.door, target, &name, &kind, &body).await;
        self.back(done)
    }

    async fn delete(
        &mut self,
        this: Resource<kube_write::Target>,
        name: String,
        grace_seconds: Option<u32>,
    ) -> Answered<()> {
        let target = self.table.get(&this)?;
        self.cpu.pause();
        let done = kube_write::delete(&self.door, target, &name, grace_seconds).await;
        self.back(done)
    }

    async fn delete_collection(
        &mut self,
        this: Resource<kube_write::Target>,
        labels: String,
    ) -> Answered<u32> {
        let target = self.table.get(&this)?;
        self.cpu.pause();
        let done = kube_write::delete_collection(&self.door, target, &labels).await;
        self.back(done)
    }

    async fn drop(&mut self, target: Resource<kube_write::Target>) -> wasmtime::Result<()> {
        self.table.delete(target)?;
        Ok(())
    }
}

impl contract::kube_write::Host for GuestState {}
