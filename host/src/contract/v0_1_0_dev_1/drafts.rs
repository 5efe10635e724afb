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

impl contract::device::Host for GuestState {
    async fn paths(&mut self, node: String, pattern: String) -> Answered<String> {
        let arguments = json!({ "node": node, "pattern": pattern });
        self.refuse("device.paths", arguments)
    }
}
