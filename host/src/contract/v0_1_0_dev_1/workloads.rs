//! `http` and `metrics`: requests to workloads and readings of them.

use super::{Answered, GuestState, contract, wait};
use crate::capability::http::{REQUEST_BODY_MAX, Request, Response};
use crate::capability::metrics::{self, Samples};
use wasmtime::component::Resource;

impl contract::http::HostResponse for GuestState {
    async fn ready(
        &mut self,
        this: Resource<Response>,
    ) -> wasmtime::Result<Resource<wait::Source>> {
        let source = self.table.get(&this)?.source();
        self.push(source)
    }

    async fn status(&mut self, this: Resource<Response>) -> Answered<Option<u16>> {
        let response = self.table.get(&this)?;
        self.cpu.pause();
        let status = response.status(&self.door);
        self.back(status)
    }

    async fn header(
        &mut self,
        this: Resource<Response>,
        name: String,
    ) -> wasmtime::Result<Option<String>> {
        let response = self.table.get(&this)?;
        self.cpu.pause();
        let value = response.header(&self.door, &name);
        self.plain(value)
    }

    async fn read(&mut self, this: Resource<Response>, max: u32) -> Answered<Option<Vec<u8>>> {
        let response = self.table.get(&this)?;
        self.cpu.pause();
        let bytes = response.read(&self.door, max);
        self.back(bytes)
    }

    async fn arrivals(&mut self, this: Resource<Response>) -> wasmtime::Result<Vec<u32>> {
        let response = self.table.get(&this)?;
        self.cpu.pause();
        let arrivals = response.arrivals(&self.door);
        self.plain(arrivals)
    }

    async fn close(&mut self, this: Resource<Response>) -> wasmtime::Result<()> {
        let response = self.table.get_mut(&this)?;
        self.cpu.pause();
        let closed = response.close(&self.door);
        self.plain(closed)
    }

    async fn drop(&mut self, response: Resource<Response>) -> wasmtime::Result<()> {
        self.table.delete(response)?;
        Ok(())
    }
}

impl contract::http::HostRequest for GuestState {
    async fn new(
        &mut self,
        method: String,
        target: String,
        path: String,
    ) -> wasmtime::Result<Resource<Request>> {
        self.hold(method.len() + target.len() + path.len())?;
        self.push(Request::new(method, target, path))
    }

    async fn header(
        &mut self,
        this: Resource<Request>,
        name: String,
        value: String,
    ) -> wasmtime::Result<()> {
        self.hold(name.len() + value.len() + 2 * size_of::<String>())?;
        self.table.get_mut(&this)?.headers.push((name, value));
        Ok(())
    }

    async fn body(
        &mut self,
        this: Resource<Request>,
        mut content: Vec<u8>,
    ) -> wasmtime::Result<()> {
        // One byte more than is taken is enough to refuse it.
        content.truncate(REQUEST_BODY_MAX + 1);
        self.hold(content.len())?;
        self.table.get_mut(&this)?.body = Some(content);
        Ok(())
    }

    async fn authorise(
        &mut self,
        this: Resource<Request>,
        secret_ref: String,
    ) -> wasmtime::Result<()> {
        self.hold(secret_ref.len())?;
        self.table.get_mut(&this)?.authorise = Some(secret_ref);
        Ok(())
    }

    async fn send(
        &mut self,
        this: Resource<Request>,
        timeout: u32,
    ) -> Answered<Resource<Response>> {
        let request = self.table.get(&this)?;
        self.cpu.pause();
        let sent = crate::capability::http::send(&self.door, request, timeout).await;
        self.opened(sent)
    }

    async fn drop(&mut self, request: Resource<Request>) -> wasmtime::Result<()> {
        self.table.delete(request)?;
        Ok(())
    }
}

impl contract::http::Host for GuestState {}

impl contract::metrics::HostSamples for GuestState {
    async fn len(&mut self, this: Resource<Samples>) -> wasmtime::Result<u32> {
        Ok(u32::try_from(self.table.get(&this)?.len()).unwrap_or(u32::MAX))
    }

    async fn name(&mut self, this: Resource<Samples>, at: u32) -> wasmtime::Result<String> {
        Ok(self.table.get(&this)?.name(at as usize).to_owned())
    }

    async fn labels(
        &mut self,
        this: Resource<Samples>,
        at: u32,
    ) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(self.table.get(&this)?.labels(at as usize).to_vec())
    }

    async fn value(&mut self, this: Resource<Samples>, at: u32) -> wasmtime::Result<f64> {
        Ok(self.table.get(&this)?.value(at as usize))
    }

    async fn text(&mut self, this: Resource<Samples>, at: u32) -> wasmtime::Result<String> {
        Ok(self.table.get(&this)?.text(at as usize).to_owned())
    }

    async fn drop(&mut self, samples: Resource<Samples>) -> wasmtime::Result<()> {
        self.table.delete(samples)?;
        Ok(())
    }
}

impl contract::metrics::Host for GuestState {
    async fn scrape(
        &mut self,
        target: String,
        path: String,
        names: Vec<String>,
    ) -> Answered<Resource<Samples>> {
        self.cpu.pause();
        let found = metrics::scrape(&self.door, &target, &path, &names).await;
        self.opened(found)
    }

    async fn query(&mut self, endpoint: String, promql: String) -> Answered<Resource<Samples>> {
        self.cpu.pause();
        let found = metrics::query(&self.door, &endpoint, &promql).await;
        self.opened(found)
    }
}
