//! The interfaces that the contract drafts and this release does not serve: builders can be filled, the final call is
//! refused through the door, so that it stands in the recording.

use super::{Answered, Draft, GuestState, Never, contract, not_live};
use serde_json::{Value, json};
use wasmtime::component::Resource;

impl GuestState {
    fn refuse<T>(&mut self, function: &'static str, arguments: Value) -> Answered<T> {
        self.cpu.pause();
        let failure = not_live::refuse(&self.door, function, arguments);
        self.back(Err(failure))
    }

    fn draft(&mut self, arguments: Value) -> wasmtime::Result<Resource<Draft>> {
        self.hold(arguments.to_string().len())?;
        self.push(Draft(json!({ "with": arguments, "options": [] })))
    }

    fn option(
        &mut self,
        this: &Resource<Draft>,
        option: &str,
        value: Value,
    ) -> wasmtime::Result<()> {
        self.hold(value.to_string().len())?;
        self.table.get_mut(this)?.add(option, value);
        Ok(())
    }

    fn never<T>(&self, this: &Resource<Never>) -> wasmtime::Result<T> {
        match *self.table.get(this)? {}
    }
}

impl contract::pods::HostByteStream for GuestState {
    async fn ready(
        &mut self,
        this: Resource<Never>,
    ) -> wasmtime::Result<Resource<super::wait::Source>> {
        self.never(&this)
    }

    async fn read(&mut self, this: Resource<Never>, _max: u32) -> Answered<Option<Vec<u8>>> {
        self.never(&this)
    }

    async fn drop(&mut self, this: Resource<Never>) -> wasmtime::Result<()> {
        self.never(&this)
    }
}

impl contract::pods::HostLogQuery for GuestState {
    async fn new(&mut self, namespace: String, pod: String) -> wasmtime::Result<Resource<Draft>> {
        self.draft(json!([namespace, pod]))
    }

    async fn container(&mut self, this: Resource<Draft>, name: String) -> wasmtime::Result<()> {
        self.option(&this, "container", json!(name))
    }

    async fn follow(&mut self, this: Resource<Draft>) -> wasmtime::Result<()> {
        self.option(&this, "follow", Value::Null)
    }

    async fn previous(&mut self, this: Resource<Draft>) -> wasmtime::Result<()> {
        self.option(&this, "previous", Value::Null)
    }

    async fn since(&mut self, this: Resource<Draft>, age: u32) -> wasmtime::Result<()> {
        self.option(&this, "since", json!(age))
    }

    async fn open(&mut self, this: Resource<Draft>) -> Answered<Resource<Never>> {
        let draft = self.table.get(&this)?.0.clone();
        self.refuse("pods.log-query.open", draft)
    }

    async fn drop(&mut self, this: Resource<Draft>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl contract::pods::HostExecution for GuestState {
    async fn output(&mut self, this: Resource<Never>) -> wasmtime::Result<Resource<Never>> {
        self.never(&this)
    }

    async fn errors(&mut self, this: Resource<Never>) -> wasmtime::Result<Resource<Never>> {
        self.never(&this)
    }

    async fn exit(&mut self, this: Resource<Never>) -> Answered<Option<i32>> {
        self.never(&this)
    }

    async fn drop(&mut self, this: Resource<Never>) -> wasmtime::Result<()> {
        self.never(&this)
    }
}

impl contract::pods::HostCommand for GuestState {
    async fn new(
        &mut self,
        namespace: String,
        pod: String,
        program: String,
    ) -> wasmtime::Result<Resource<Draft>> {
        self.draft(json!([namespace, pod, program]))
    }

    async fn container(&mut self, this: Resource<Draft>, name: String) -> wasmtime::Result<()> {
        self.option(&this, "container", json!(name))
    }

    async fn arg(&mut self, this: Resource<Draft>, value: String) -> wasmtime::Result<()> {
        self.option(&this, "arg", json!(value))
    }

    async fn start(&mut self, this: Resource<Draft>, deadline: u32) -> Answered<Resource<Never>> {
        let mut draft = self.table.get(&this)?.clone();
        draft.add("deadline", json!(deadline));
        self.refuse("pods.command.start", draft.0)
    }

    async fn drop(&mut self, this: Resource<Draft>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl contract::pods::Host for GuestState {}

impl contract::http::HostResponse for GuestState {
    async fn ready(
        &mut self,
        this: Resource<Never>,
    ) -> wasmtime::Result<Resource<super::wait::Source>> {
        self.never(&this)
    }

    async fn status(&mut self, this: Resource<Never>) -> Answered<Option<u16>> {
        self.never(&this)
    }

    async fn header(
        &mut self,
        this: Resource<Never>,
        _name: String,
    ) -> wasmtime::Result<Option<String>> {
        self.never(&this)
    }

    async fn read(&mut self, this: Resource<Never>, _max: u32) -> Answered<Option<Vec<u8>>> {
        self.never(&this)
    }

    async fn arrivals(&mut self, this: Resource<Never>) -> wasmtime::Result<Vec<u32>> {
        self.never(&this)
    }

    async fn close(&mut self, this: Resource<Never>) -> wasmtime::Result<()> {
        self.never(&this)
    }

    async fn drop(&mut self, this: Resource<Never>) -> wasmtime::Result<()> {
        self.never(&this)
    }
}

impl contract::http::HostRequest for GuestState {
    async fn new(
        &mut self,
        method: String,
        target: String,
        path: String,
    ) -> wasmtime::Result<Resource<Draft>> {
        self.draft(json!([method, target, path]))
    }

    async fn header(
        &mut self,
        this: Resource<Draft>,
        name: String,
        value: String,
    ) -> wasmtime::Result<()> {
        self.option(&this, "header", json!([name, value]))
    }

    async fn body(&mut self, this: Resource<Draft>, content: Vec<u8>) -> wasmtime::Result<()> {
        self.option(&this, "body-bytes", json!(content.len()))
    }

    async fn authorise(
        &mut self,
        this: Resource<Draft>,
        secret_ref: String,
    ) -> wasmtime::Result<()> {
        self.option(&this, "authorise", json!(secret_ref))
    }

    async fn send(&mut self, this: Resource<Draft>, timeout: u32) -> Answered<Resource<Never>> {
        let mut draft = self.table.get(&this)?.clone();
        draft.add("timeout", json!(timeout));
        self.refuse("http.request.send", draft.0)
    }

    async fn drop(&mut self, this: Resource<Draft>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl contract::http::Host for GuestState {}

impl contract::metrics::HostSamples for GuestState {
    async fn len(&mut self, this: Resource<Never>) -> wasmtime::Result<u32> {
        self.never(&this)
    }

    async fn name(&mut self, this: Resource<Never>, _at: u32) -> wasmtime::Result<String> {
        self.never(&this)
    }

    async fn labels(
        &mut self,
        this: Resource<Never>,
        _at: u32,
    ) -> wasmtime::Result<Vec<(String, String)>> {
        self.never(&this)
    }

    async fn value(&mut self, this: Resource<Never>, _at: u32) -> wasmtime::Result<f64> {
        self.never(&this)
    }

    async fn text(&mut self, this: Resource<Never>, _at: u32) -> wasmtime::Result<String> {
        self.never(&this)
    }

    async fn drop(&mut self, this: Resource<Never>) -> wasmtime::Result<()> {
        self.never(&this)
    }
}

impl contract::metrics::Host for GuestState {
    async fn scrape(
        &mut self,
        target: String,
        path: String,
        names: Vec<String>,
    ) -> Answered<Resource<Never>> {
        let arguments = json!({ "target": target, "path": path, "names": names });
        self.refuse("metrics.scrape", arguments)
    }

    async fn query(&mut self, endpoint: String, promql: String) -> Answered<Resource<Never>> {
        let arguments = json!({ "endpoint": endpoint, "promql": promql });
        self.refuse("metrics.query", arguments)
    }
}

impl contract::device::Host for GuestState {
    async fn paths(&mut self, node: String, pattern: String) -> Answered<String> {
        let arguments = json!({ "node": node, "pattern": pattern });
        self.refuse("device.paths", arguments)
    }
}
